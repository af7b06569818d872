/* SPDX-License-Identifier: MIT
 *
 * Loads libcurl, once for the whole process, as the dynamic linker would have at its start.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>

#include "curl.h"

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define SYMBOL(name)                                         \
    {                                                        \
        "curl_" #name, offsetof(struct curl_functions, name) \
    }
    SYMBOL(global_init),         SYMBOL(easy_init),        SYMBOL(easy_cleanup),
    SYMBOL(easy_setopt),         SYMBOL(easy_getinfo),     SYMBOL(easy_strerror),
    SYMBOL(multi_init),          SYMBOL(multi_cleanup),    SYMBOL(multi_setopt),
    SYMBOL(multi_strerror),      SYMBOL(multi_add_handle), SYMBOL(multi_remove_handle),
    SYMBOL(multi_socket_action), SYMBOL(multi_info_read),  SYMBOL(slist_append),
    SYMBOL(slist_free_all),
#undef SYMBOL
};

/* Written once, under the mutex; whoever reads the functions has been through it. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool loaded;
static struct curl_functions functions;

const struct curl_functions *curl(void)
{
    return &functions;
}

/* The errno of there being none, which dlopen(3) keeps to itself; else 0. */
static int lacks_descriptors(void)
{
    cleanup_fd int fd = open("/", O_PATH | O_CLOEXEC);

    return fd < 0 && is_shortage(-errno) ? errno : 0;
}

static int load(fcproc_error *err)
{
    static const char *const names[] = { "libcurl.so.4", "libcurl-gnutls.so.4" };
    void *library = NULL;
    int why;

    for (size_t i = 0; i < ELEMENTS(names) && !library; i++)
        library = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    for (size_t i = 0; library && i < ELEMENTS(symbols); i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol)
            return error_set(err, FCPROC_ERR_UNSUPPORTED, "api.request", 0,
                             "the libcurl that is installed has no %s: it is too old",
                             symbols[i].name);
        memcpy((char *)&functions + symbols[i].offset, &symbol, sizeof(symbol));
    }
    if (!library) {
        const char *text = dlerror();

        why = lacks_descriptors();
        if (why != 0)
            return error_errno(err, "api.request", why, "libcurl can't be loaded");
        return error_set(err, FCPROC_ERR_UNSUPPORTED, "api.request", 0,
                         "libcurl can't be loaded (Debian: apt install libcurl4): %s", text);
    }
    if (functions.global_init(CURL_GLOBAL_ALL) != CURLE_OK)
        return error_nomem(err, "api.request");
    return 0;
}

int curl_load(fcproc_error *err)
{
    int r = 0;

    (void)pthread_mutex_lock(&mutex);
    if (!loaded)
        r = load(err);
    loaded = r == 0;
    (void)pthread_mutex_unlock(&mutex);
    return r;
}
