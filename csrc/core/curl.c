/* SPDX-License-Identifier: MIT
 *
 * Loads libcurl at its first use.
 */
#include "curl.h"

#include "library.h"

static const struct library_symbol symbols[] = {
#define SYMBOL(name) LIBRARY_SYMBOL(struct curl_functions, curl_, name)
    SYMBOL(global_init),         SYMBOL(easy_init),        SYMBOL(easy_cleanup),
    SYMBOL(easy_setopt),         SYMBOL(easy_getinfo),     SYMBOL(easy_strerror),
    SYMBOL(multi_init),          SYMBOL(multi_cleanup),    SYMBOL(multi_setopt),
    SYMBOL(multi_strerror),      SYMBOL(multi_add_handle), SYMBOL(multi_remove_handle),
    SYMBOL(multi_socket_action), SYMBOL(multi_info_read),  SYMBOL(slist_append),
    SYMBOL(slist_free_all),
#undef SYMBOL
};

static struct curl_functions functions;

const struct curl_functions *curl(void)
{
    return &functions;
}

static int init(void)
{
    return functions.global_init(CURL_GLOBAL_ALL) == CURLE_OK ? 0 : -ENOMEM;
}

int curl_load(fcproc_error *err)
{
    static const char *const files[] = { "libcurl.so.4", "libcurl-gnutls.so.4", NULL };
    static struct library library = {
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .name = "libcurl",
        .package = "libcurl4",
        .files = files,
        .symbols = symbols,
        .n = ELEMENTS(symbols),
        .functions = &functions,
        .init = init,
    };

    return library_load(&library, "api.request", err);
}
