/* SPDX-License-Identifier: MIT
 *
 * Counts what a test program holds.
 */
#ifndef FCPROC_COUNT_H
#define FCPROC_COUNT_H

#include <dirent.h>

static inline int count_entries(const char *folder_path)
{
    DIR *dir = opendir(folder_path);
    int n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        (void)closedir(dir);
    return n;
}

static inline int count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

#endif
