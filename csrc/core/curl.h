/* SPDX-License-Identifier: MIT
 *
 * libcurl, loaded when it is first needed. With its libraries for TLS, Kerberos and LDAP, none of
 * which serves here, it brings 6 MiB into a process that may only want a bridge.
 */
#ifndef FCPROC_CURL_H
#define FCPROC_CURL_H

#include <curl/curl.h>

#include "private.h"

struct curl_functions {
#define CURL_FUNCTION(name) __typeof__(&curl_##name) name
    CURL_FUNCTION(global_init);
    CURL_FUNCTION(easy_init);
    CURL_FUNCTION(easy_cleanup);
    CURL_FUNCTION(easy_setopt);
    CURL_FUNCTION(easy_getinfo);
    CURL_FUNCTION(easy_strerror);
    CURL_FUNCTION(multi_init);
    CURL_FUNCTION(multi_cleanup);
    CURL_FUNCTION(multi_setopt);
    CURL_FUNCTION(multi_strerror);
    CURL_FUNCTION(multi_add_handle);
    CURL_FUNCTION(multi_remove_handle);
    CURL_FUNCTION(multi_socket_action);
    CURL_FUNCTION(multi_info_read);
    CURL_FUNCTION(slist_append);
    CURL_FUNCTION(slist_free_all);
#undef CURL_FUNCTION
};

/* Loads it if it is not; 0, or FCPROC_ERR_UNSUPPORTED. */
int curl_load(fcproc_error *err);
/* Its functions; only after curl_load. */
const struct curl_functions *curl(void);

#endif
