//! Where the inputs of a run come from.

use std::{fs, path::Path};

/// The longest input that is made.
const BYTES_MAX: usize = 4096;

/// Runs a target on its seeds and regressions, and on so many inputs that are made from them.
pub fn run(name: &str, made: usize, target: fn(&[u8])) {
    let mut inputs = kept("seeds", name);
    assert!(!inputs.is_empty(), "fuzz/seeds/{name} is empty");
    inputs.extend(kept("regressions", name));
    for input in &inputs {
        judge(name, target, input);
    }
    let mut dice = Dice(0x5EED_0001);
    for _ in 0..made {
        let input = dice.mutated(&inputs);
        judge(name, target, &input);
    }
}

/// The files of a target, in the order of their names.
fn kept(folder: &str, name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(name);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Says which input it was when the target panics.
fn judge(name: &str, target: fn(&[u8]), input: &[u8]) {
    struct Judged<'a>(&'a str, &'a [u8]);
    impl Drop for Judged<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("the input of {} that failed: {hex}", self.0);
            }
        }
    }
    let _judged = Judged(name, input);
    target(input);
}

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    /// A byte of the kind that makes trouble, or any.
    fn byte(&mut self) -> u8 {
        const TROUBLE: [u8; 8] = [0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF];
        if self.roll(2) == 0 { TROUBLE[self.roll(TROUBLE.len())] } else { self.roll(256) as u8 }
    }

    /// One of the inputs with up to eight changes, or the front of one with the back of another.
    fn mutated(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.roll(inputs.len())].clone();
        for _ in 0..=self.roll(8) {
            let at = self.roll(input.len() + 1);
            match self.roll(8) {
                0 => input.insert(at, self.byte()),
                1 => input.truncate(at),
                2 => {
                    let other = &inputs[self.roll(inputs.len())];
                    let from = self.roll(other.len() + 1);
                    input.splice(at.., other[from..].iter().copied());
                }
                3 => {
                    let end = (at + self.roll(16)).min(input.len());
                    let copy = input[at..end].to_vec();
                    input.splice(at..at, copy);
                }
                4 if at < input.len() => drop(input.remove(at)),
                5 if at < input.len() => input[at] ^= 1 << self.roll(8),
                _ if at < input.len() => input[at] = self.byte(),
                _ => input.push(self.byte()),
            }
        }
        input.truncate(BYTES_MAX);
        input
    }
}
