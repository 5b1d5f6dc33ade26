//! Finds the end of a JSON value without parsing it: the hot loop of reading.

use memchr::memchr3;

/// Follows brackets and strings until the value that began is over.
#[derive(Default)]
pub(super) struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

pub(super) enum Step {
    Done,
    More,
    NewLine,
    CutString,
}

/// Bytes that mean something outside strings.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b"\"{}[]\n";
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] = true;
        i += 1;
    }
    table
};

impl Scan {
    /// Goes on over `bytes`, which follow those of the call before; returns how many were passed, and why it stopped.
    pub(super) fn run(&mut self, bytes: &[u8]) -> (usize, Step) {
        let mut i = 0;
        if !self.begun {
            let Some(first) = bytes.first() else { return (0, Step::More) };
            self.begun = true;
            match first {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth = 1,
                _ => return self.scalar(bytes),
            }
            i = 1;
        } else if self.depth == 0 && !self.in_string {
            return self.scalar(bytes);
        }
        if self.escaped && i < bytes.len() {
            self.escaped = false;
            i += 1;
        }
        loop {
            if self.in_string {
                let Some(n) = memchr3(b'"', b'\\', b'\n', &bytes[i..]) else { return (bytes.len(), Step::More) };
                i += n + 1;
                match bytes[i - 1] {
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (i, Step::Done);
                        }
                    }
                    b'\\' if i < bytes.len() => {
                        i += 1;
                        continue;
                    }
                    b'\\' => {
                        self.escaped = true;
                        return (i, Step::More);
                    }
                    _ => return (i - 1, Step::CutString),
                }
            }
            let Some(n) = bytes[i..].iter().position(|byte| SPECIAL[*byte as usize]) else {
                return (bytes.len(), Step::More);
            };
            i += n + 1;
            match bytes[i - 1] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'\n' => return (i, Step::NewLine),
                _ => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (i, Step::Done);
                    }
                }
            }
        }
    }

    fn scalar(&mut self, bytes: &[u8]) -> (usize, Step) {
        match bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')) {
            Some(n) => (n, Step::Done),
            None => (bytes.len(), Step::More),
        }
    }
}
