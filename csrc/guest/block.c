// SPDX-License-Identifier: MIT
//
// Reads the first sector of a block device once and prints how it starts, which is proof enough
// that the host's file arrived. Nothing is ever written.
#include "guest.h"

#define REQUEST_READ       0
#define STATUS_OK          0
#define STATUS_NOT_WRITTEN 0xff
#define SECTOR_SIZE        512
#define SHOWN_LONGEST      64
#define CONFIG_CAPACITY    0

static struct virtio_queue queue GUEST_UNCLEARED;
static struct {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
} request;
static char sector[SECTOR_SIZE] __attribute__((aligned(SECTOR_SIZE))) GUEST_UNCLEARED;
static volatile uint8_t status = STATUS_NOT_WRITTEN;

static bool block_read_first(const struct virtio_device *device)
{
    uint32_t length;

    request.type = REQUEST_READ;
    virtio_describe(&queue, 0, &request, sizeof(request), VIRTIO_NEXT);
    virtio_describe(&queue, 1, sector, sizeof(sector), VIRTIO_NEXT | VIRTIO_WRITES);
    virtio_describe(&queue, 2, (void *)(uintptr_t)&status, 1, VIRTIO_WRITES);
    virtio_submit(&queue, 0);
    virtio_notify(device, &queue);
    while (!virtio_finished(&queue)) {
        interrupt_wait(IRQ_BIT(device->irq));
        virtio_acknowledge(device);
    }
    virtio_take(&queue, &length);
    return status == STATUS_OK;
}

void block_show(const struct virtio_device *device)
{
    uint64_t features = VIRTIO_F_VERSION_1;
    char shown[4 * SHOWN_LONGEST + 1];
    size_t size = 0;

    if (!virtio_negotiate(device, &features) || !virtio_add_queue(device, &queue, 0)) {
        console_say("block 0: the device cannot be used");
        return;
    }
    uint64_t capacity = virtio_config32(device, CONFIG_CAPACITY) |
                        (uint64_t)virtio_config32(device, CONFIG_CAPACITY + 4) << 32;
    virtio_go(device);
    if (!capacity || !block_read_first(device)) {
        console_say("block 0: %lu sectors, the first is not readable", capacity);
        return;
    }
    while (size < SHOWN_LONGEST && sector[size])
        size++;
    text_escape(shown, sector, size);
    console_say("block 0: %lu sectors, starts \"%s\"", capacity, shown);
}
