/* SPDX-License-Identifier: MIT
 *
 * Executes a command inside of the namespaces, or a VMM in its jail.
 */
#include "rootless.h"

int enter_main(int argc, char **argv)
{
    int user_fd, net_fd;

    if (argc < 5) {
        errno = EINVAL;
        fail("too few arguments");
    }
    user_fd = descriptor(argv[0]);
    net_fd = descriptor(argv[1]);
    enter_namespaces(user_fd, net_fd);
    close_on_exec(user_fd);
    close_on_exec(net_fd);
    /* argv[2] is what keeps the holder: whoever is inside has it. */
    if (strcmp(argv[3], "jail") == 0)
        return jail_main(argc - 4, argv + 4);
    (void)execv(argv[4], argv + 4);
    fail("can't execute %s", argv[4]);
}
