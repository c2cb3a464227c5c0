//! Mutates files of every kind that is loaded, on a stable compiler, and counts what becomes of them.
//!
//! `mutate [--inputs N] [--seed N] [--target NAME]`; N inputs are shared among the targets. `mutate --target NAME --again FILE` runs one
//! input that was kept.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mnemic_fuzz::{Target, targets};

/// What takes longer than this is written down as a hang.
const SLOW: Duration = Duration::from_secs(1);
/// Inputs do not grow past this.
const LONGEST: usize = 1 << 16;

fn main() -> ExitCode {
    let mut options = BTreeMap::from([("--inputs", "1000000".to_string()), ("--seed", "1".into())]);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let known = ["--inputs", "--seed", "--target", "--again"].into_iter().find(|known| *known == name);
        let (Some(known), Some(value)) = (known, args.next()) else {
            eprintln!("usage: mutate [--inputs N] [--seed N] [--target NAME [--again FILE]]");
            return ExitCode::FAILURE;
        };
        options.insert(known, value);
    }
    let (inputs, seed): (usize, u64) =
        (options["--inputs"].parse().unwrap(), options["--seed"].parse().unwrap());
    let wanted = options.get("--target");
    let targets: Vec<_> =
        targets().into_iter().filter(|t| wanted.is_none_or(|name| t.name == name)).collect();
    for target in &targets {
        for (i, seed) in target.seeds.iter().enumerate() {
            assert!((target.run)(seed), "{}: seed {i} is refused", target.name);
        }
    }
    if let Some(file) = options.get("--again") {
        return again(&targets, file);
    }
    // The messages of panics that are counted anyway.
    std::panic::set_hook(Box::new(|_| {}));
    println!("seed {seed}, {inputs} inputs");
    println!("| target | inputs | accepted | refused | panics | over 1 s | slowest | time |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let bad =
        targets.iter().map(|t| campaign(t, inputs.div_ceil(targets.len()), seed)).sum::<usize>();
    println!("peak memory: {}", peak());
    match bad {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs one input of one target a few times; a panic speaks for itself.
fn again(targets: &[Target], file: &str) -> ExitCode {
    let [target] = targets else {
        eprintln!("--again needs --target, one that there is");
        return ExitCode::FAILURE;
    };
    let input = std::fs::read(file).unwrap();
    for _ in 0..5 {
        let began = Instant::now();
        let accepted = (target.run)(&input);
        println!("{}: accepted: {accepted}, {:.1?}", target.name, began.elapsed());
    }
    ExitCode::SUCCESS
}

/// Runs one target and gives how many inputs it failed on.
fn campaign(target: &Target, inputs: usize, seed: u64) -> usize {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut accepted, mut panics, mut slow, mut slowest) = (0, 0, 0, Duration::ZERO);
    let start = Instant::now();
    for _ in 0..inputs {
        let input = mutated(target, &mut random);
        let began = Instant::now();
        let result = catch_unwind(|| (target.run)(&input));
        let took = began.elapsed();
        slowest = slowest.max(took);
        match result {
            Ok(true) => accepted += 1,
            Ok(false) => {}
            Err(_) => {
                panics += 1;
                keep(target.name, "panic", panics, &input);
            }
        }
        if took > SLOW {
            slow += 1;
            keep(target.name, "slow", slow, &input);
        }
    }
    let (name, refused) = (target.name, inputs - accepted - panics);
    println!(
        "| {name} | {inputs} | {accepted} | {refused} | {panics} | {slow} | {:.1} ms | {:.0} s |",
        slowest.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64()
    );
    panics + slow
}

/// A seed after one change, or up to eight.
fn mutated(target: &Target, random: &mut Random) -> Vec<u8> {
    let mut input = target.seeds[random.below(target.seeds.len())].clone();
    let most = if random.below(2) == 0 { 1 } else { 8 };
    for _ in 0..1 + random.below(most) {
        change(&mut input, target, random);
        input.truncate(LONGEST);
    }
    if random.below(4) > 0 {
        (target.repair)(&mut input);
    }
    input
}

fn change(input: &mut Vec<u8>, target: &Target, random: &mut Random) {
    let at = random.below(input.len() + 1);
    let rest = input.len() - at;
    let some = |random: &mut Random| random.below(rest.min(64) + 1);
    match random.below(10) {
        0 if rest > 0 => input[at] ^= 1 << random.below(8),
        1 if rest > 0 => input[at] = random.below(256) as u8,
        2 => {
            let count = some(random);
            input.drain(at..at + count);
        }
        3 => {
            let piece = input[at..at + some(random)].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        4 => {
            let word = target.words[random.below(target.words.len())];
            let over = if random.below(2) == 0 { 0 } else { word.len().min(rest) };
            input.splice(at..at + over, word.iter().copied());
        }
        5 => {
            // A number that a length or an offset may have.
            let edges =
                [0, 1, u64::MAX, i64::MAX as u64, 1 << 32, u64::from(u32::MAX), 1 << 31, 255];
            let number = edges[random.below(edges.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(rest);
            input[at..at + width].copy_from_slice(&number[..width]);
        }
        6 => {
            // Digits become others.
            let digits: Vec<_> = (0..input.len()).filter(|i| input[*i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                input[digits[random.below(digits.len())]] = b'0' + random.below(10) as u8;
            }
        }
        7 => {
            let other = &target.seeds[random.below(target.seeds.len())];
            let from = random.below(other.len() + 1);
            let count = random.below((other.len() - from).min(256) + 1);
            input.splice(at..at + some(random), other[from..from + count].iter().copied());
        }
        8 => number(input, random),
        9 if random.below(8) == 0 => input.truncate(at),
        _ => {}
    }
}

/// Puts another number in place of one that is written in digits.
fn number(input: &mut Vec<u8>, random: &mut Random) {
    let digit = |i: usize| input.get(i).is_some_and(u8::is_ascii_digit);
    let starts: Vec<_> =
        (0..input.len()).filter(|i| digit(*i) && (*i == 0 || !digit(i - 1))).collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[random.below(starts.len())];
    let end = (start..input.len()).find(|i| !digit(*i)).unwrap_or(input.len());
    let numbers: [&[u8]; 16] = [
        b"0",
        b"1",
        b"2",
        b"7",
        b"-1",
        b"1.5",
        b"1e999",
        b"1000",
        b"65536",
        b"1000000",
        b"16777216",
        b"2147483648",
        b"4294967295",
        b"1152921504606846976",
        b"9223372036854775807",
        b"18446744073709551615",
    ];
    input.splice(start..end, numbers[random.below(numbers.len())].iter().copied());
}

/// Keeps an input that something is wrong with.
fn keep(target: &str, kind: &str, number: usize, input: &[u8]) {
    if number <= 20 {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{kind}-{number}")), input).unwrap();
    }
}

/// The most memory that was resident, as Linux says.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".to_string(), |line| line.trim().to_string())
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}
