//! Captures, written by hand.

/// Forms of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Format {
    Little,
    Big,
    Nanoseconds,
    NextLittle,
    NextBig,
}

impl Format {
    pub(crate) const ALL: [Self; 5] =
        [Self::Little, Self::Big, Self::Nanoseconds, Self::NextLittle, Self::NextBig];
}

/// What is around the IP packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Link {
    Ethernet,
    Vlan,
    Raw,
    Loopback,
    Cooked,
    Cooked2,
}

impl Link {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ethernet, Self::Vlan, Self::Raw, Self::Loopback, Self::Cooked, Self::Cooked2];

    fn number(self) -> u16 {
        match self {
            Self::Ethernet | Self::Vlan => 1,
            Self::Raw => 101,
            Self::Loopback => 0,
            Self::Cooked => 113,
            Self::Cooked2 => 276,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Net {
    V4,
    V6,
}

/// A TCP segment from port 50000 to port 4005 in a frame. Flags: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK.
pub(crate) fn frame(link: Link, net: Net, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = [50_000u16.to_be_bytes(), 4005u16.to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    // Acknowledged, five words of header, flags, window, checksum, urgent.
    tcp.extend([0, 0, 0, 0, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    tcp.extend(payload);
    let length = u16::try_from(tcp.len()).unwrap();
    let (kind, ip) = match net {
        Net::V4 => {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + length).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            ([0x08, 0x00], ip)
        }
        Net::V6 => {
            let mut ip = vec![0x60, 0, 0, 0];
            // With an extension header of eight bytes: destination options.
            ip.extend((8 + length).to_be_bytes());
            ip.extend([60, 64]);
            ip.extend([0xFD; 16]);
            ip.extend([0xFE; 16]);
            ip.extend([6, 0, 1, 4, 0, 0, 0, 0]);
            ([0x86, 0xDD], ip)
        }
    };
    let mut head = match link {
        Link::Ethernet => [&[2; 12][..], &kind].concat(),
        Link::Vlan => [&[2; 12][..], &[0x81, 0x00, 0, 5], &kind].concat(),
        Link::Raw => vec![],
        Link::Loopback => vec![2, 0, 0, 0],
        Link::Cooked => [&[0; 14][..], &kind].concat(),
        Link::Cooked2 => [&kind[..], &[0; 18]].concat(),
    };
    head.extend(ip);
    head.extend(tcp);
    // Ethernet frames are padded to 60 bytes.
    if matches!(link, Link::Ethernet) {
        head.resize(head.len().max(60), 0);
    }
    head
}

/// A file of frames.
pub(crate) fn capture(format: Format, link: Link, frames: &[Vec<u8>]) -> Vec<u8> {
    let big = matches!(format, Format::Big | Format::NextBig);
    let u32 = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let u16 = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut file = Vec::new();
    if matches!(format, Format::NextLittle | Format::NextBig) {
        let mut block = |kind: u32, body: &[u8]| {
            let padding = body.len().wrapping_neg() % 4;
            let length = u32((12 + body.len() + padding) as u32);
            file.extend([&u32(kind)[..], &length, body, &vec![0; padding], &length].concat());
        };
        block(0x0A0D_0D0A, &[&u32(0x1A2B_3C4D)[..], &u16(1), &u16(0), &[0xFF; 8]].concat());
        block(1, &[&u16(link.number())[..], &[0; 6]].concat());
        // Name resolution: of no interest.
        block(4, &[0; 4]);
        for (at, frame) in frames.iter().enumerate() {
            let length = u32(frame.len() as u32);
            if at % 2 == 0 {
                block(6, &[&u32(0)[..], &[0; 8], &length, &length, frame].concat());
            } else {
                block(
                    6,
                    &[
                        &u32(0)[..],
                        &[1; 8],
                        &length,
                        &length,
                        frame,
                        &vec![0; frame.len().wrapping_neg() % 4],
                        &u32(0),
                    ]
                    .concat(),
                );
            }
        }
        return file;
    }
    let magic = if format == Format::Nanoseconds { 0xA1B2_3C4D } else { 0xA1B2_C3D4 };
    file.extend(u32(magic));
    file.extend([u16(2), u16(4)].concat());
    file.extend([0; 8]);
    file.extend(u32(262_144));
    file.extend(u32(link.number().into()));
    for frame in frames {
        let length = u32(frame.len() as u32);
        file.extend([&[0; 8][..], &length, &length, frame].concat());
    }
    file
}
