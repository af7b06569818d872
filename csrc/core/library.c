/* SPDX-License-Identifier: MIT
 *
 * Loads a library, once for the whole process, as the dynamic linker would have at its start.
 */
#include "library.h"

#include <dlfcn.h>
#include <fcntl.h>

/* The errno of there being none, which dlopen(3) keeps to itself; else 0. */
static int lacks_descriptors(void)
{
    cleanup_fd int fd = open("/", O_PATH | O_CLOEXEC);

    return fd < 0 && is_shortage(-errno) ? errno : 0;
}

static int load(const struct library *library, const char *op, fcproc_error *err)
{
    void *handle = NULL;
    int why;

    for (size_t i = 0; library->files[i] && !handle; i++)
        handle = dlopen(library->files[i], RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    for (size_t i = 0; handle && i < library->n; i++) {
        void *symbol = dlsym(handle, library->symbols[i].name);

        if (!symbol)
            return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                             "the %s that is installed has no %s: it is too old", library->name,
                             library->symbols[i].name);
        memcpy((char *)library->functions + library->symbols[i].offset, &symbol, sizeof(symbol));
    }
    if (!handle) {
        const char *text = dlerror();

        why = lacks_descriptors();
        if (why != 0)
            return error_errno(err, op, why, "%s can't be loaded", library->name);
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, 0,
                         "%s can't be loaded (Debian: apt install %s): %s", library->name,
                         library->package, text);
    }
    why = library->init ? library->init() : 0;
    return why < 0 ? error_errno(err, op, -why, "%s can't start", library->name) : 0;
}

int library_load(struct library *library, const char *op, fcproc_error *err)
{
    int r = 0;

    (void)pthread_mutex_lock(&library->mutex);
    if (!library->loaded)
        r = load(library, op, err);
    library->loaded = r == 0;
    (void)pthread_mutex_unlock(&library->mutex);
    return r;
}
