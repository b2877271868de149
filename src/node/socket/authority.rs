//! Makes drivers older than v1.6 work: they send the socket's path as `:authority`, which h2 rejects.
//!
//! Such a driver (grpc-go without an explicit authority) encodes `:authority` once per connection as a
//! literal that enters the header table, and by index afterwards. [`AuthorityAdapter`] parses the incoming
//! bytes, finds that literal, and overwrites a value that starts like a path with the same number of bytes
//! of a valid name. Lengths do not change, so nothing has to be buffered, and the table entry that later
//! requests refer to is the overwritten one. Everything else passes unchanged; bytes that are not HTTP/2
//! disable the adapter, and h2 closes the connection.
//!
//! Sources: RFC 9113 §4, §6.2, §6.10 (frames), RFC 7541 §5, §6 and appendix B (HPACK).

/// The connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in HPACK's static table.
const AUTHORITY_INDEX: u8 = 1;
const AUTHORITY: &[u8] = b":authority";
/// `:authority`, Huffman-coded.
const AUTHORITY_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// Overwrites a plain value.
const PLAIN_FILL: u8 = b'x';
/// Overwrites a Huffman-coded value: the code of `X`, which like that of `Z` has eight bits, so that any
/// number of bytes is a whole number of letters.
const HUFFMAN_FILL: u8 = 0xfc;
/// Maximum length of a header name or value, in bytes. No driver sends a longer one.
const MAX_STRING: usize = 1 << 20;

/// Parses and rewrites one connection. See the module.
#[derive(Debug)]
pub(super) struct AuthorityAdapter {
    place: Place,
    block: Block,
}

/// The position of the next byte in the connection.
#[derive(Clone, Copy, Debug)]
enum Place {
    Preface(usize),
    FrameHead([u8; 9], usize),
    PadLength {
        payload: usize,
        priority: bool,
    },
    Priority {
        left: usize,
        fragment: usize,
        padding: usize,
    },
    Fragment {
        left: usize,
        padding: usize,
    },
    Skip(usize),
    Off,
}

/// The position of the next byte in a header block.
#[derive(Clone, Copy, Debug)]
enum Block {
    Field,
    /// Further bytes of a number that does not matter; a value or another field follows.
    Number {
        value: bool,
    },
    NameLength,
    Name {
        left: usize,
        seen: usize,
        plain: bool,
        huffman: bool,
    },
    ValueLength {
        authority: bool,
    },
    /// Further bytes of a string's length.
    Length {
        sum: usize,
        shift: u32,
        coded: bool,
        of: Of,
    },
    Value {
        left: usize,
        begun: bool,
        authority: bool,
        coded: bool,
        fill: Option<u8>,
    },
}

/// The string to which a length belongs.
#[derive(Clone, Copy, Debug)]
enum Of {
    Name,
    Value { authority: bool },
}

impl AuthorityAdapter {
    /// An adapter for a new connection.
    pub(super) fn new() -> Self {
        Self {
            place: Place::Preface(0),
            block: Block::Field,
        }
    }

    /// Rewrites incoming bytes, however they are split.
    pub(super) fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while let Some(byte) = bytes.first_mut() {
            let used = match self.place {
                Place::Off => return,
                Place::Skip(left) => {
                    let skipped = left.min(bytes.len());
                    self.place = match left - skipped {
                        0 => Place::FrameHead([0; 9], 0),
                        left => Place::Skip(left),
                    };
                    skipped
                }
                _ => {
                    self.place = self.step(byte);
                    1
                }
            };
            bytes = &mut bytes[used..];
        }
    }

    fn step(&mut self, byte: &mut u8) -> Place {
        match self.place {
            Place::Preface(seen) if PREFACE.get(seen) != Some(byte) => Place::Off,
            Place::Preface(seen) if seen + 1 == PREFACE.len() => Place::FrameHead([0; 9], 0),
            Place::Preface(seen) => Place::Preface(seen + 1),
            Place::FrameHead(mut head, seen) => {
                head[seen] = *byte;
                if seen + 1 == head.len() {
                    self.frame(head)
                } else {
                    Place::FrameHead(head, seen + 1)
                }
            }
            Place::PadLength { payload, priority } => fields(payload, usize::from(*byte), priority),
            Place::Priority {
                left,
                fragment,
                padding,
            } => match left - 1 {
                0 => fragment_of(fragment, padding),
                left => Place::Priority {
                    left,
                    fragment,
                    padding,
                },
            },
            Place::Fragment { left, padding } => match self.field(byte) {
                Some(block) => {
                    self.block = block;
                    fragment_of(left - 1, padding)
                }
                None => Place::Off,
            },
            Place::Skip(_) | Place::Off => self.place,
        }
    }

    fn frame(&mut self, head: [u8; 9]) -> Place {
        let payload = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        match kind {
            HEADERS => {
                self.block = Block::Field;
                let priority = flags & PRIORITY != 0;
                match flags & PADDED != 0 {
                    true if payload == 0 => Place::Off,
                    true => Place::PadLength {
                        payload: payload - 1,
                        priority,
                    },
                    false => fields(payload, 0, priority),
                }
            }
            CONTINUATION => fragment_of(payload, 0),
            _ => skip(payload),
        }
    }

    /// Handles one byte of a header block; `None` if it cannot come from a driver.
    fn field(&mut self, byte: &mut u8) -> Option<Block> {
        let b = *byte;
        Some(match self.block {
            Block::Field => match b {
                0x80.. => number_or(b & 0x7f, 0x7f, Block::Field, false),
                0x40.. => named(b & 0x3f, 0x3f),
                0x20.. => number_or(b & 0x1f, 0x1f, Block::Field, false),
                _ => named(b & 0x0f, 0x0f),
            },
            Block::Number { value } if b & 0x80 != 0 => Block::Number { value },
            Block::Number { value: true } => Block::ValueLength { authority: false },
            Block::Number { value: false } => Block::Field,
            Block::NameLength => length(b, Of::Name),
            Block::ValueLength { authority } => length(b, Of::Value { authority }),
            Block::Length {
                sum,
                shift,
                coded,
                of,
            } => {
                let sum = sum.checked_add(usize::from(b & 0x7f).checked_shl(shift)?)?;
                if sum > MAX_STRING || shift > 21 {
                    return None;
                }
                match b & 0x80 {
                    0 => string(sum, coded, of),
                    _ => Block::Length {
                        sum,
                        shift: shift + 7,
                        coded,
                        of,
                    },
                }
            }
            Block::Name {
                left,
                seen,
                plain,
                huffman,
            } => {
                let plain = plain && AUTHORITY.get(seen) == Some(&b);
                let huffman = huffman && AUTHORITY_HUFFMAN.get(seen) == Some(&b);
                match left - 1 {
                    0 => Block::ValueLength {
                        authority: plain || huffman,
                    },
                    left => Block::Name {
                        left,
                        seen: seen + 1,
                        plain,
                        huffman,
                    },
                }
            }
            Block::Value {
                left,
                begun,
                authority,
                coded,
                fill,
            } => {
                let fill = if authority && !begun {
                    fill_for(b, coded)
                } else {
                    fill
                };
                if let Some(fill) = fill {
                    *byte = fill;
                }
                match left - 1 {
                    0 => Block::Field,
                    left => Block::Value {
                        left,
                        begun: true,
                        authority,
                        coded,
                        fill,
                    },
                }
            }
        })
    }
}

/// The byte that overwrites a value that starts with `first`: only values that start like a path, plain or
/// percent-encoded. No valid authority starts with `/` or `%`.
fn fill_for(first: u8, coded: bool) -> Option<u8> {
    match (coded, first) {
        (false, b'/' | b'%') => Some(PLAIN_FILL),
        // The six-bit codes of `/` and `%`.
        (true, _) if matches!(first >> 2, 0b01_1000 | 0b01_0101) => Some(HUFFMAN_FILL),
        _ => None,
    }
}

/// After the pad length of a HEADERS frame.
fn fields(payload: usize, padding: usize, priority: bool) -> Place {
    const PRIORITY_BYTES: usize = 5;
    let priority = if priority { PRIORITY_BYTES } else { 0 };
    match payload.checked_sub(priority + padding) {
        None => Place::Off,
        Some(fragment) if priority == 0 => fragment_of(fragment, padding),
        Some(fragment) => Place::Priority {
            left: priority,
            fragment,
            padding,
        },
    }
}

fn fragment_of(left: usize, padding: usize) -> Place {
    if left == 0 {
        skip(padding)
    } else {
        Place::Fragment { left, padding }
    }
}

fn skip(left: usize) -> Place {
    if left == 0 {
        Place::FrameHead([0; 9], 0)
    } else {
        Place::Skip(left)
    }
}

/// After an index that may continue in further bytes.
fn number_or(index: u8, full: u8, next: Block, value: bool) -> Block {
    if index == full {
        Block::Number { value }
    } else {
        next
    }
}

/// A literal whose name has the given index, or follows.
///
/// An index of the dynamic table (62 and up) is never taken for `:authority`: encoders find that name in the
/// static table first (Go's hpack and gRPC's C core do).
fn named(index: u8, full: u8) -> Block {
    if index == 0 {
        return Block::NameLength;
    }
    number_or(
        index,
        full,
        Block::ValueLength {
            authority: index == AUTHORITY_INDEX,
        },
        true,
    )
}

fn length(byte: u8, of: Of) -> Block {
    let (coded, length) = (byte & 0x80 != 0, byte & 0x7f);
    if length == 0x7f {
        Block::Length {
            sum: 0x7f,
            shift: 0,
            coded,
            of,
        }
    } else {
        string(usize::from(length), coded, of)
    }
}

fn string(left: usize, coded: bool, of: Of) -> Block {
    match (of, left) {
        (Of::Name, 0) => Block::ValueLength { authority: false },
        (Of::Name, left) => Block::Name {
            left,
            seen: 0,
            plain: !coded && left == AUTHORITY.len(),
            huffman: coded && left == AUTHORITY_HUFFMAN.len(),
        },
        (Of::Value { .. }, 0) => Block::Field,
        (Of::Value { authority }, left) => Block::Value {
            left,
            begun: false,
            authority,
            coded,
            fill: None,
        },
    }
}

#[cfg(test)]
mod tests;
