// SPDX-License-Identifier: MIT
//
// Answers ARP requests, pings and UDP's echo service (port 7) for one IPv4 address. Every answer is
// made in the buffer that the request came in: the buffer goes from the receive queue to the
// transmit queue and back, so nothing is copied and there is always a buffer to answer with.
#include "guest.h"

#define NET_F_MAC      (1ull << 5)
#define QUEUE_RECEIVE  0
#define QUEUE_TRANSMIT 1
#define BUFFER_SIZE    2048

#define ETHERNET_ARP      0x0806
#define ETHERNET_IPV4     0x0800
#define ARP_REQUEST       1
#define ARP_REPLY         2
#define PROTOCOL_ICMP     1
#define PROTOCOL_UDP      17
#define ICMP_ECHO_REQUEST 8
#define ICMP_ECHO_REPLY   0
#define PORT_ECHO         7
#define IPV4_FRAGMENT     0x3fff // the fragment offset and the flag that more of them follow

// Everything on the wire is made of these, which may lie at any address. Numbers are in network
// order; an IPv4 address is only ever moved and compared, so its order does not matter.
struct be16 {
    uint8_t high, low;
};

struct mac {
    uint8_t bytes[6];
};

struct address {
    uint32_t number;
} __attribute__((packed));

struct virtio_header {
    uint8_t bytes[12];
};

struct ethernet {
    struct mac to, from;
    struct be16 type;
};

struct arp {
    struct be16 hardware, protocol;
    uint8_t hardware_size, protocol_size;
    struct be16 operation;
    struct mac sender_mac;
    struct address sender_ip;
    struct mac target_mac;
    struct address target_ip;
};

struct ipv4 {
    uint8_t version_and_size, service;
    struct be16 size, identification, fragment;
    uint8_t time_to_live, protocol;
    struct be16 checksum;
    struct address from, to;
};

struct icmp {
    uint8_t type, code;
    struct be16 checksum, identifier, sequence;
};

struct udp {
    struct be16 from, to, size, checksum;
};

struct net_buffer {
    struct virtio_header header;
    struct ethernet ethernet;
    union {
        uint8_t bytes[BUFFER_SIZE - sizeof(struct virtio_header) - sizeof(struct ethernet)];
        struct arp arp;
        struct ipv4 ipv4;
    };
};

_Static_assert(sizeof(struct net_buffer) == BUFFER_SIZE, "no gaps");
_Static_assert(sizeof(struct arp) == 28 && sizeof(struct ipv4) == 20, "as on the wire");

static struct virtio_device nic;
static struct virtio_queue receive_queue GUEST_UNCLEARED, transmit_queue GUEST_UNCLEARED;
// Buffer N is described by descriptor N of either queue.
static struct net_buffer buffers[VIRTIO_QUEUE_SIZE] GUEST_UNCLEARED;
static struct mac own_mac;
static struct address own_ip;
static bool is_serving;

static unsigned be16_get(struct be16 number)
{
    return (unsigned)number.high << 8 | number.low;
}

static struct be16 be16_make(unsigned number)
{
    return (struct be16){ (uint8_t)(number >> 8), (uint8_t)number };
}

static bool net_parse_address(const char *text, struct address *address)
{
    address->number = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t number;
        if (i && *text++ != '.')
            return false;
        if (!text_read_number(&text, &number) || number > 255)
            return false;
        address->number |= (uint32_t)number << (8 * i);
    }
    // Linux's ip= goes on with other fields.
    return !*text || *text == ' ' || *text == ':';
}

static void net_read_mac(uint64_t features)
{
    for (unsigned i = 0; i < 6; i++)
        own_mac.bytes[i] = virtio_config8(&nic, i);
    // Without an address from the host, make a private one that differs from other guests'.
    if (!(features & NET_F_MAC)) {
        own_mac = (struct mac){ { 0x06 } };
        memcpy(own_mac.bytes + 2, &own_ip, sizeof(own_ip));
    }
}

static void net_give_to_receiver(uint16_t buffer)
{
    virtio_describe(&receive_queue, buffer, &buffers[buffer], BUFFER_SIZE, VIRTIO_WRITES);
    virtio_submit(&receive_queue, buffer);
}

static void net_transmit(uint16_t buffer, uint32_t frame_size)
{
    buffers[buffer].header = (struct virtio_header){ { 0 } };
    virtio_describe(&transmit_queue, buffer, &buffers[buffer],
                    sizeof(struct virtio_header) + frame_size, 0);
    virtio_submit(&transmit_queue, buffer);
}

static unsigned net_checksum(const uint8_t *bytes, unsigned size)
{
    unsigned sum = 0;

    for (unsigned i = 0; i + 1 < size; i += 2)
        sum += (unsigned)bytes[i] << 8 | bytes[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static bool net_answer_arp(struct net_buffer *frame, uint32_t size)
{
    struct arp *arp = &frame->arp;

    if (size < sizeof(frame->ethernet) + sizeof(*arp) || be16_get(arp->hardware) != 1 ||
        be16_get(arp->protocol) != ETHERNET_IPV4 || arp->hardware_size != 6 ||
        arp->protocol_size != 4 || be16_get(arp->operation) != ARP_REQUEST ||
        arp->target_ip.number != own_ip.number)
        return false;
    arp->operation = be16_make(ARP_REPLY);
    arp->target_mac = arp->sender_mac;
    arp->target_ip = arp->sender_ip;
    arp->sender_mac = own_mac;
    arp->sender_ip = own_ip;
    return true;
}

static bool net_answer_ping(struct icmp *icmp, unsigned size)
{
    if (size < sizeof(*icmp) || icmp->type != ICMP_ECHO_REQUEST || icmp->code != 0)
        return false;
    // Take the change of type out of the checksum instead of adding the payload up again: quicker,
    // and a request that arrived damaged leaves as a damaged answer, not as a good one.
    unsigned sum = be16_get(icmp->checksum) + (ICMP_ECHO_REQUEST << 8);
    icmp->checksum = be16_make((sum & 0xffff) + (sum >> 16));
    icmp->type = ICMP_ECHO_REPLY;
    return true;
}

// The echo service. Both ends change places, so its checksum stays what it is. Another echo service
// gets no answer: they would never end.
static bool net_answer_udp(struct udp *udp, unsigned size)
{
    struct be16 from = udp->from;

    if (size < sizeof(*udp) || be16_get(udp->to) != PORT_ECHO || be16_get(from) == PORT_ECHO)
        return false;
    udp->from = udp->to;
    udp->to = from;
    return true;
}

static bool net_answer_ip(struct net_buffer *frame, uint32_t size)
{
    struct ipv4 *ip = &frame->ipv4;
    unsigned header_size = (ip->version_and_size & 15) * 4u, packet_size = be16_get(ip->size);
    void *content = frame->bytes + header_size;
    bool is_answer = false;

    if (size < sizeof(frame->ethernet) + sizeof(*ip) || ip->version_and_size >> 4 != 4 ||
        header_size < sizeof(*ip) || packet_size < header_size ||
        packet_size > size - sizeof(frame->ethernet) || be16_get(ip->fragment) & IPV4_FRAGMENT ||
        ip->to.number != own_ip.number)
        return false;
    if (ip->protocol == PROTOCOL_ICMP)
        is_answer = net_answer_ping(content, packet_size - header_size);
    else if (ip->protocol == PROTOCOL_UDP)
        is_answer = net_answer_udp(content, packet_size - header_size);
    if (!is_answer)
        return false;
    ip->to = ip->from;
    ip->from = own_ip;
    ip->time_to_live = 64;
    ip->checksum = be16_make(0);
    ip->checksum = be16_make(net_checksum(frame->bytes, header_size));
    return true;
}

// Turns the frame into its answer; false if it gets none.
static bool net_answer(struct net_buffer *frame, uint32_t size)
{
    bool is_answer = false;

    if (size < sizeof(frame->ethernet))
        return false;
    if (be16_get(frame->ethernet.type) == ETHERNET_ARP)
        is_answer = net_answer_arp(frame, size);
    else if (be16_get(frame->ethernet.type) == ETHERNET_IPV4)
        is_answer = net_answer_ip(frame, size);
    if (is_answer) {
        frame->ethernet.to = frame->ethernet.from;
        frame->ethernet.from = own_mac;
    }
    return is_answer;
}

// Tells the neighbours at once, so that nobody goes on using what they knew of this address.
static void net_announce(uint16_t buffer)
{
    struct net_buffer *frame = &buffers[buffer];

    frame->ethernet = (struct ethernet){
        .to = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } },
        .from = own_mac,
        .type = be16_make(ETHERNET_ARP),
    };
    frame->arp = (struct arp){
        .hardware = be16_make(1),
        .protocol = be16_make(ETHERNET_IPV4),
        .hardware_size = 6,
        .protocol_size = 4,
        .operation = be16_make(ARP_REQUEST),
        .sender_mac = own_mac,
        .sender_ip = own_ip,
        .target_ip = own_ip,
    };
    net_transmit(buffer, sizeof(frame->ethernet) + sizeof(frame->arp));
}

static void net_show(void)
{
    const uint8_t *mac = own_mac.bytes;
    const uint8_t *ip = (const uint8_t *)&own_ip;

    console_say("net MAC %02x:%02x:%02x:%02x:%02x:%02x ip %u.%u.%u.%u", mac[0], mac[1], mac[2],
                mac[3], mac[4], mac[5], ip[0], ip[1], ip[2], ip[3]);
}

void net_start(const struct virtio_device *device)
{
    uint64_t features = VIRTIO_F_VERSION_1 | NET_F_MAC;
    const char *address = cmdline_value("ip", 0);
    bool has_address = address && net_parse_address(address, &own_ip);

    nic = *device;
    if (!virtio_negotiate(&nic, &features) ||
        !virtio_add_queue(&nic, &receive_queue, QUEUE_RECEIVE) ||
        !virtio_add_queue(&nic, &transmit_queue, QUEUE_TRANSMIT)) {
        console_say("net: the device cannot be used");
        return;
    }
    net_read_mac(features);
    if (!has_address) {
        console_say("net: %s on the command line, not answering",
                    address ? "no IPv4 address in ip=" : "no ip=");
        return;
    }
    net_show();
    virtio_go(&nic);
    is_serving = true;
    for (uint16_t i = 1; i < VIRTIO_QUEUE_SIZE; i++)
        net_give_to_receiver(i);
    virtio_notify(&nic, &receive_queue);
    // The buffer left over; like any other it joins the receive queue once it has been sent.
    net_announce(0);
    virtio_notify(&nic, &transmit_queue);
}

void net_serve(uint64_t irqs)
{
    bool has_received = false, has_transmitted = false;
    uint32_t size;

    if (!is_serving || !(irqs & IRQ_BIT(nic.irq)))
        return;
    virtio_acknowledge(&nic);

    for (unsigned count = virtio_finished(&receive_queue); count; count--) {
        uint16_t buffer = virtio_take(&receive_queue, &size);
        uint32_t header_size = sizeof(struct virtio_header);
        uint32_t frame_size = size > header_size && size <= BUFFER_SIZE ? size - header_size : 0;
        if (net_answer(&buffers[buffer], frame_size)) {
            net_transmit(buffer, frame_size);
            has_transmitted = true;
        } else {
            net_give_to_receiver(buffer);
            has_received = true;
        }
    }
    if (has_transmitted)
        virtio_notify(&nic, &transmit_queue);

    for (unsigned count = virtio_finished(&transmit_queue); count; count--) {
        net_give_to_receiver(virtio_take(&transmit_queue, &size));
        has_received = true;
    }
    if (has_received)
        virtio_notify(&nic, &receive_queue);
}
