/* SPDX-License-Identifier: MIT
 *
 * Targets, for the jobs on them.
 */
#ifndef FCPROC_IMAGE_TARGET_H
#define FCPROC_IMAGE_TARGET_H

#include "image.h"

/* One who closes it more: it is there until the last has. */
fcproc_image_target *target_ref(fcproc_image_target *target);

#endif
