/* SPDX-License-Identifier: MIT
 *
 * What a C or C++ program writes with the headers: compiled with every warning, by header_spec.lua.
 */
#include <fcproc.h>
#include <fcproc_image.h>

int use_every_struct(void);

int use_every_struct(void)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_file_id id = FCPROC_FILE_ID_INIT;
    struct fcproc_expected expected = FCPROC_EXPECTED_INIT;
    struct fcproc_copy copy = FCPROC_COPY_INIT;
    struct fcproc_hash hash = FCPROC_HASH_INIT;
    struct fcproc_identity identity = FCPROC_IDENTITY_INIT;
    struct fcproc_stream stream = FCPROC_STREAM_INIT;
    struct fcproc_spawn spawn = FCPROC_SPAWN_INIT;
    struct fcproc_command command = FCPROC_COMMAND_INIT;
    struct fcproc_bridge bridge = FCPROC_BRIDGE_INIT;
    struct fcproc_tap tap = FCPROC_TAP_INIT;
    fcproc_process *process = NULL;

    spawn.streams[1] = stream;
    command.spawn = spawn;
    copy.expected = &expected;
    expected.id = id;
    (void)bridge;
    (void)tap;
    (void)hash;
    return fcproc_process_open_identity(&identity, &process, &err) == FCPROC_ERR_NOT_FOUND &&
           spawn.umask == -1 && spawn.uid == -1 && spawn.gid == -1 && tap.uid == -1 &&
           tap.gid == -1 && copy.uid == -1 && copy.gid == -1 && expected.uid == -1 &&
           expected.reader_uid == -1 && expected.reader_gid == -1 && command.timeout_ms == -1;
}

int use_every_struct_of_images(void);

int use_every_struct_of_images(void)
{
    struct fcproc_image_progress progress = FCPROC_IMAGE_PROGRESS_INIT;
    struct fcproc_image_unpacking unpacking = FCPROC_IMAGE_UNPACKING_INIT;
    struct fcproc_image_unpacked unpacked = FCPROC_IMAGE_UNPACKED_INIT;
    struct fcproc_image_limits limits = FCPROC_IMAGE_LIMITS_INIT;
    struct fcproc_image_archive archive = FCPROC_IMAGE_ARCHIVE_INIT;
    struct fcproc_image_node node = FCPROC_IMAGE_NODE_INIT;
    struct fcproc_image_stat stat = FCPROC_IMAGE_STAT_INIT;
    struct fcproc_image_sealed sealed = FCPROC_IMAGE_SEALED_INIT;
    struct fcproc_image_need need = FCPROC_IMAGE_NEED_INIT;
    struct fcproc_image_output output = FCPROC_IMAGE_OUTPUT_INIT;

    (void)progress;
    (void)unpacking;
    (void)unpacked;
    (void)limits;
    (void)archive;
    (void)node;
    (void)stat;
    (void)sealed;
    (void)need;
    (void)output;
    return 0;
}
