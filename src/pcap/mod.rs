//! Network captures, read for the TCP streams in them.
//!
//! A capture is a file that anybody may have written: nothing here trusts a length in it, and memory is bounded by
//! constants, whatever the file says. [`Capture`] finds the frames of a pcap or pcapng file, [`segment`] the TCP segment
//! in a frame, and [`Flows`] puts segments in order.

mod flow;
mod segment;

pub use flow::{Event, FlowId, Flows};
pub use segment::{Segment, segment};

use std::io::{self, Read};

/// Bytes of the largest frame: the snapshot length that tcpdump takes by default.
pub const MAX_FRAME_LEN: u32 = 262_144;

/// Interfaces that one section of a pcapng file may describe. Real ones have a handful.
const MAX_INTERFACES: usize = 1024;

/// The first four bytes of a pcapng file: the type of a section header, the same in both byte orders.
const SECTION: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
/// The magic numbers of pcap, with time in microseconds and in nanoseconds.
const MAGIC: [u32; 2] = [0xA1B2_C3D4, 0xA1B2_3C4D];

/// Why a capture can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It can't be read at all, or ends within a frame.
    #[error("the capture can't be read to its end: {0}")]
    Io(#[from] io::Error),
    /// It is no pcap or pcapng file.
    #[error("no capture: expected a pcap or pcapng file")]
    Magic,
    /// A length in it is impossible.
    #[error("a block of {length} bytes in the capture, expected {expected}")]
    Length {
        /// The length.
        length: u32,
        /// What it could be.
        expected: &'static str,
    },
    /// A frame of an interface that was not described.
    #[error("a frame of interface {0}, which the capture does not describe")]
    Interface(u32),
}

/// A captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What its first header is: a LINKTYPE of the registry at tcpdump.org.
    pub link: u16,
    /// Its bytes, as far as they were captured.
    pub bytes: &'a [u8],
}

/// A pcap or pcapng file, frame by frame.
#[derive(Debug)]
pub struct Capture<R> {
    input: R,
    big_endian: bool,
    /// By interface; one for all in a pcap file.
    links: Vec<u16>,
    next_generation: bool,
    frame: Vec<u8>,
}

/// Whether a file that begins so is a capture. No well-formed Vortex packet begins so: read as a header, each of these
/// declares a value above the limit.
#[must_use]
pub fn is_capture(first: [u8; 4]) -> bool {
    let (big, little) = (u32::from_be_bytes(first), u32::from_le_bytes(first));
    big == SECTION || MAGIC.contains(&big) || MAGIC.contains(&little)
}

impl<R: Read> Capture<R> {
    /// Reads what is before the first frame.
    ///
    /// # Errors
    /// [`CaptureError::Magic`] when it is none, or another one of them.
    pub fn open(mut input: R) -> Result<Self, CaptureError> {
        let first: [u8; 4] = read(&mut input)?;
        let big_endian = MAGIC.contains(&u32::from_be_bytes(first));
        let next_generation = u32::from_be_bytes(first) == SECTION;
        if !is_capture(first) {
            return Err(CaptureError::Magic);
        }
        let mut capture = Self { input, big_endian, links: Vec::new(), next_generation, frame: Vec::new() };
        if next_generation {
            capture.section()?;
        } else {
            // Version, zone, accuracy, snapshot length.
            let _: [u8; 16] = read(&mut capture.input)?;
            let link = capture.u32()?;
            // The upper bits tell of a frame check sequence.
            capture.links.push((link & 0xFFFF) as u16);
        }
        Ok(capture)
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError`]; then the rest of the file is lost.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        loop {
            let mut first = [0; 4];
            match self.input.read(&mut first)? {
                0 => return Ok(None),
                count => self.input.read_exact(first.get_mut(count..).unwrap_or_default())?,
            }
            let link = if self.next_generation {
                self.block(self.number(first))?
            } else {
                // Two halves of the time, of which `first` is one, and the captured and the original length.
                self.u32()?;
                let captured = self.u32()?;
                self.u32()?;
                self.fill(captured)?;
                self.links.first().copied()
            };
            if let Some(link) = link {
                return Ok(Some(Frame { link, bytes: &self.frame }));
            }
        }
    }

    /// Reads a block of pcapng whose type was read; the link type, if it is a frame.
    fn block(&mut self, kind: u32) -> Result<Option<u16>, CaptureError> {
        if kind == SECTION {
            self.section()?;
            return Ok(None);
        }
        let length = self.u32()?;
        // Type, length, and the length again at the end.
        let body = length.checked_sub(12).filter(|body| body % 4 == 0);
        let body = body.ok_or(CaptureError::Length { length, expected: "12 or more, by four" })?;
        let short = CaptureError::Length { length, expected: "all fields of the block" };
        let (link, left) = match kind {
            // An interface: link type, reserved, snapshot length.
            1 if self.links.len() < MAX_INTERFACES => {
                let left = body.checked_sub(4).ok_or(short)?;
                let [a, b, _, _] = read(&mut self.input)?;
                let link = if self.big_endian { [a, b] } else { [b, a] };
                self.links.push(u16::from_be_bytes(link));
                (None, left)
            }
            // A simple frame, of the first interface: original length.
            3 => {
                let left = body.checked_sub(4).ok_or(short)?;
                let captured = self.u32()?.min(left);
                self.fill(captured)?;
                (self.links.first().copied(), left - captured)
            }
            // A frame: interface, two halves of the time, captured and original length.
            6 => {
                let left = body.checked_sub(20).ok_or(short)?;
                let interface = self.u32()?;
                let _: [u8; 8] = read(&mut self.input)?;
                let captured = self.u32()?;
                self.u32()?;
                let left = left
                    .checked_sub(captured)
                    .ok_or(CaptureError::Length { length: captured, expected: "no more than the block" })?;
                self.fill(captured)?;
                let link = usize::try_from(interface).ok().and_then(|at| self.links.get(at));
                (Some(*link.ok_or(CaptureError::Interface(interface))?), left)
            }
            _ => (None, body),
        };
        self.pass_over(u64::from(left) + 4)?;
        Ok(link)
    }

    /// Reads a section header whose type was read.
    fn section(&mut self) -> Result<(), CaptureError> {
        let length: [u8; 4] = read(&mut self.input)?;
        let order: [u8; 4] = read(&mut self.input)?;
        self.big_endian = match (u32::from_be_bytes(order), u32::from_le_bytes(order)) {
            (BYTE_ORDER, _) => true,
            (_, BYTE_ORDER) => false,
            _ => return Err(CaptureError::Magic),
        };
        self.links.clear();
        let length = self.number(length);
        let rest = length.checked_sub(12).filter(|rest| *rest >= 16);
        let rest = rest.ok_or(CaptureError::Length { length, expected: "28 or more for a section" })?;
        self.pass_over(rest.into())
    }

    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u32(&mut self) -> Result<u32, CaptureError> {
        let bytes = read(&mut self.input)?;
        Ok(self.number(bytes))
    }

    /// Reads the bytes of a frame: as many as there are, so that memory follows the file.
    fn fill(&mut self, length: u32) -> Result<(), CaptureError> {
        if length > MAX_FRAME_LEN {
            return Err(CaptureError::Length { length, expected: "at most 262144 for a frame" });
        }
        self.frame.clear();
        let read = self.input.by_ref().take(length.into()).read_to_end(&mut self.frame)?;
        if read as u64 == u64::from(length) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof))?
        }
    }

    fn pass_over(&mut self, length: u64) -> Result<(), CaptureError> {
        let passed = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        if passed == length { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof))? }
    }
}

fn read<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
