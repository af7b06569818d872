// SPDX-License-Identifier: MIT
//
// virtio-mmio devices (version 2, "modern") with split queues: finding out what a device is,
// starting it, and passing buffers back and forth. Knows nothing of what is in the buffers.
#include "guest.h"

#define REGISTER_MAGIC                  0x000
#define REGISTER_VERSION                0x004
#define REGISTER_DEVICE_ID              0x008
#define REGISTER_DEVICE_FEATURES        0x010
#define REGISTER_DEVICE_FEATURES_SELECT 0x014
#define REGISTER_DRIVER_FEATURES        0x020
#define REGISTER_DRIVER_FEATURES_SELECT 0x024
#define REGISTER_QUEUE_SELECT           0x030
#define REGISTER_QUEUE_LONGEST          0x034
#define REGISTER_QUEUE_SIZE             0x038
#define REGISTER_QUEUE_READY            0x044
#define REGISTER_QUEUE_NOTIFY           0x050
#define REGISTER_INTERRUPT_ACKNOWLEDGE  0x064
#define REGISTER_STATUS                 0x070
#define REGISTER_QUEUE_DESCRIPTORS      0x080
#define REGISTER_QUEUE_AVAILABLE        0x090
#define REGISTER_QUEUE_USED             0x0a0
#define REGISTER_CONFIG                 0x100
#define REGISTERS_SIZE                  0x1000

#define MAGIC          0x74726976 // "virt"
#define VERSION_MODERN 2

#define STATUS_ACKNOWLEDGE 0x01
#define STATUS_DRIVER      0x02
#define STATUS_DRIVER_OK   0x04
#define STATUS_FEATURES_OK 0x08

#define INTERRUPT_BUFFERS 1
#define INTERRUPT_CONFIG  2

static uint32_t virtio_read(const struct virtio_device *device, uint32_t offset)
{
    return mmio_read32(device->base + offset);
}

static void virtio_write(const struct virtio_device *device, uint32_t offset, uint32_t value)
{
    mmio_write32(device->base + offset, value);
}

static void virtio_write_address(const struct virtio_device *device, uint32_t offset,
                                 const volatile void *address)
{
    virtio_write(device, offset, (uint32_t)(uintptr_t)address);
    virtio_write(device, offset + 4, (uint32_t)((uintptr_t)address >> 32));
}

static void virtio_add_status(const struct virtio_device *device, uint32_t bits)
{
    virtio_write(device, REGISTER_STATUS, virtio_read(device, REGISTER_STATUS) | bits);
}

bool virtio_open(struct virtio_device *device, uint64_t base, uint64_t irq)
{
    if (base < MMIO_WINDOW_START || base > MMIO_WINDOW_END - REGISTERS_SIZE || base & 3 ||
        irq >= IRQ_COUNT) {
        console_say("device at 0x%lx irq %lu is out of reach", base, irq);
        return false;
    }
    mapping_add(base);
    device->base = base;
    device->irq = (unsigned)irq;
    if (virtio_read(device, REGISTER_MAGIC) != MAGIC ||
        virtio_read(device, REGISTER_VERSION) != VERSION_MODERN) {
        console_say("device at 0x%lx is not virtio-mmio version 2", base);
        return false;
    }
    device->id = virtio_read(device, REGISTER_DEVICE_ID);
    return true;
}

bool virtio_negotiate(const struct virtio_device *device, uint64_t *features)
{
    virtio_write(device, REGISTER_STATUS, 0);
    virtio_add_status(device, STATUS_ACKNOWLEDGE);
    virtio_add_status(device, STATUS_DRIVER);
    for (uint32_t half = 0; half < 2; half++) {
        virtio_write(device, REGISTER_DEVICE_FEATURES_SELECT, half);
        uint64_t offered = (uint64_t)virtio_read(device, REGISTER_DEVICE_FEATURES) << (32 * half);
        *features &= offered | (half ? UINT32_MAX : ~(uint64_t)UINT32_MAX);
        virtio_write(device, REGISTER_DRIVER_FEATURES_SELECT, half);
        virtio_write(device, REGISTER_DRIVER_FEATURES, (uint32_t)(*features >> (32 * half)));
    }
    virtio_add_status(device, STATUS_FEATURES_OK);
    return virtio_read(device, REGISTER_STATUS) & STATUS_FEATURES_OK;
}

bool virtio_add_queue(const struct virtio_device *device, struct virtio_queue *queue,
                      uint32_t number)
{
    queue->number = number;
    queue->used_seen = 0;
    queue->available.flags = queue->available.index = 0;
    queue->used.flags = queue->used.index = 0;
    virtio_write(device, REGISTER_QUEUE_SELECT, number);
    if (virtio_read(device, REGISTER_QUEUE_LONGEST) < VIRTIO_QUEUE_SIZE)
        return false;
    virtio_write(device, REGISTER_QUEUE_SIZE, VIRTIO_QUEUE_SIZE);
    virtio_write_address(device, REGISTER_QUEUE_DESCRIPTORS, queue->descriptors);
    virtio_write_address(device, REGISTER_QUEUE_AVAILABLE, &queue->available);
    virtio_write_address(device, REGISTER_QUEUE_USED, &queue->used);
    virtio_write(device, REGISTER_QUEUE_READY, 1);
    return true;
}

void virtio_go(const struct virtio_device *device)
{
    interrupt_enable(device->irq);
    virtio_add_status(device, STATUS_DRIVER_OK);
}

void virtio_acknowledge(const struct virtio_device *device)
{
    // Both kinds, unseen: asking which it was would cost another exit, and neither the buffers
    // (looked at next in any case) nor the configuration (never reread) depend on the answer.
    virtio_write(device, REGISTER_INTERRUPT_ACKNOWLEDGE, INTERRUPT_BUFFERS | INTERRUPT_CONFIG);
}

void virtio_describe(struct virtio_queue *queue, uint16_t descriptor, void *buffer, uint32_t length,
                     uint16_t flags)
{
    queue->descriptors[descriptor] = (struct virtio_descriptor){
        .address = (uintptr_t)buffer,
        .length = length,
        .flags = flags,
        .next = (uint16_t)(descriptor + 1),
    };
}

void virtio_submit(struct virtio_queue *queue, uint16_t descriptor)
{
    uint16_t index = queue->available.index;

    queue->available.ring[index % VIRTIO_QUEUE_SIZE] = descriptor;
    // The processor keeps stores in order; this keeps the compiler from changing it.
    __asm__ volatile("" : : : "memory");
    queue->available.index = (uint16_t)(index + 1);
}

void virtio_notify(const struct virtio_device *device, const struct virtio_queue *queue)
{
    virtio_write(device, REGISTER_QUEUE_NOTIFY, queue->number);
}

unsigned virtio_finished(const struct virtio_queue *queue)
{
    return (uint16_t)(queue->used.index - queue->used_seen);
}

uint16_t virtio_take(struct virtio_queue *queue, uint32_t *length)
{
    unsigned place = queue->used_seen++ % VIRTIO_QUEUE_SIZE;

    __asm__ volatile("" : : : "memory");
    *length = queue->used.ring[place].length;
    return (uint16_t)(queue->used.ring[place].descriptor % VIRTIO_QUEUE_SIZE);
}

uint8_t virtio_config8(const struct virtio_device *device, unsigned offset)
{
    return mmio_read8(device->base + REGISTER_CONFIG + offset);
}

uint32_t virtio_config32(const struct virtio_device *device, unsigned offset)
{
    return virtio_read(device, REGISTER_CONFIG + offset);
}
