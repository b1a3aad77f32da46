"""Captures that nobody had to capture: Ethernet, IPv4, TCP and UDP around given bytes."""

import struct


class Capture:
    """A pcap file of Ethernet, IPv4 and TCP or UDP."""

    def __init__(self):
        self.frames = []

    def frame(self, protocol, source, target, segment):
        addresses = bytes([10, 0, 0, source]) + bytes([10, 0, 0, target])
        ip = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), len(self.frames) & 0xFFFF, 0, 64, protocol, 0))
        ip += addresses
        total = sum(struct.unpack(">10H", ip))
        total = (total & 0xFFFF) + (total >> 16)
        ip[10:12] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
        self.frames.append(b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\x00" + bytes(ip) + segment)

    def write(self, path):
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
            for number, frame in enumerate(self.frames):
                file.write(struct.pack("<IIII", 1790000000 + number // 1000, number % 1000 * 1000, len(frame), len(frame)))
                file.write(frame)


class Connection:
    """A TCP connection within a capture, from its own port to 4005."""

    def __init__(self, capture, port):
        self.capture, self.port = capture, port
        self.next = {"client": 1000, "server": 5000}
        self.segment("client", b"", 0x02)
        self.segment("server", b"", 0x12)
        self.segment("client", b"", 0x10)

    def segment(self, side, data, flags, at=None):
        other = "server" if side == "client" else "client"
        ports = (self.port, 4005) if side == "client" else (4005, self.port)
        sequence = self.next[side] if at is None else at
        acknowledged = self.next[other] if flags & 0x10 else 0
        tcp = struct.pack(">HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0)
        self.capture.frame(6, *((1, 2) if side == "client" else (2, 1)), tcp + data)
        if at is None:
            self.next[side] += len(data) + (flags & 3 != 0)

    def send(self, side, data, split=None, finish=False, swap=None, again=None):
        """split: lengths of the segments. swap: this segment and the next trade places. again: this one comes twice."""
        parts, at = [], 0
        for length in split or [min(1400, len(data) - i) for i in range(0, len(data), 1400)]:
            parts.append((self.next[side] + at, data[at : at + length]))
            at += length
        assert at == len(data), "a split adds up to the bytes"
        if swap is not None:
            parts[swap], parts[swap + 1] = parts[swap + 1], parts[swap]
        if again is not None:
            parts.insert(again + 1, parts[again])
        for position, (sequence, part) in enumerate(parts):
            last = finish and position == len(parts) - 1
            self.segment(side, part, 0x19 if last else 0x18, at=sequence)
        self.next[side] += len(data) + finish
