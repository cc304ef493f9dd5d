//! Contents of files, the same for one seed on every machine.

/// SplitMix64: the trees must not change with the release of a crate.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A size whose logarithm is evenly spread, as sizes of files roughly are.
    pub(crate) fn size(&mut self, least: u64, most: u64) -> u64 {
        let (low, high) = ((least as f64).ln(), (most as f64).ln());
        ((low + (high - low) * self.unit()).exp() as u64).clamp(least, most)
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sentences.
    Text,
    /// Indented lines of few words and many signs.
    Source,
    /// Records of equal keys with numbers, words and identifiers.
    Json,
    /// What no compressor makes smaller: pictures, films, archives.
    Random,
}

impl Kind {
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Kind::Text => "txt",
            Kind::Source => "rs",
            Kind::Json => "json",
            Kind::Random => "bin",
        }
    }
}

/// Makes contents out of one vocabulary.
#[derive(Debug)]
pub(crate) struct Generator {
    words: Vec<String>,
}

const SYLLABLES: [&str; 24] = [
    "ba", "con", "der", "est", "fi", "gra", "hal", "in", "jo", "ker", "lum", "men", "nor", "os", "pra",
    "qui", "re", "sta", "tion", "ur", "ver", "wen", "xi", "ly",
];

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut word =
            || (0..1 + random.below(4)).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect();
        Generator { words: (0..12_000).map(|_| word()).collect() }
    }

    /// Exactly `size` bytes.
    pub(crate) fn content(&self, kind: Kind, size: usize, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::with_capacity(size + 512);
        while out.len() < size {
            match kind {
                Kind::Text => self.sentence(&mut out, random),
                Kind::Source => self.line(&mut out, random),
                Kind::Json => self.record(&mut out, random),
                Kind::Random => out.extend_from_slice(&random.next().to_le_bytes()),
            }
        }
        out.truncate(size);
        out
    }

    /// Common words are common: the rank falls steeply.
    pub(crate) fn word(&self, random: &mut Random) -> &str {
        let rank = random.unit().powi(3);
        &self.words[(rank * self.words.len() as f64) as usize % self.words.len()]
    }

    fn sentence(&self, out: &mut Vec<u8>, random: &mut Random) {
        for i in 0..6 + random.below(14) {
            if i > 0 {
                out.extend_from_slice(if random.below(9) == 0 { b", " } else { b" " });
            }
            out.extend_from_slice(self.word(random).as_bytes());
        }
        out.extend_from_slice(if random.below(6) == 0 { b".\n\n" } else { b". " });
    }

    fn line(&self, out: &mut Vec<u8>, random: &mut Random) {
        let indent = "    ".repeat(random.below(5));
        let (a, b, c) = (self.word(random), self.word(random), self.word(random));
        let text = match random.below(7) {
            0 => format!("{indent}let {a}_{b} = {c}.{a}({b});\n"),
            1 => format!("{indent}if self.{a} != {b}::{c} {{\n"),
            2 => format!("{indent}}}\n\n"),
            3 => format!("{indent}// {a} {b} {c} {}\n", self.word(random)),
            4 => format!("{indent}pub fn {a}_{b}(&self, {c}: u{}) -> Result<{b}> {{\n", 8 << random.below(4)),
            5 => format!("{indent}return Err({a}::new(\"{b} {c}\", {}));\n", random.below(1000)),
            _ => format!("{indent}{a}.{b}()?.{c}(|x| x.{a}).collect::<Vec<_>>();\n"),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn record(&self, out: &mut Vec<u8>, random: &mut Random) {
        let (name, tag) = (self.word(random), self.word(random));
        let text = format!(
            "{{\"id\":\"{:016x}\",\"name\":\"{name} {tag}\",\"amount\":{}.{:02},\"tags\":[\"{tag}\",\"{}\"],\"created\":{},\"active\":{}}}\n",
            random.next(),
            random.below(100_000),
            random.below(100),
            self.word(random),
            1_600_000_000 + random.below(150_000_000),
            random.below(2) == 0,
        );
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_the_same_for_a_seed_and_of_the_size_asked_for() {
        let generator = Generator::new(7);
        for kind in [Kind::Text, Kind::Source, Kind::Json, Kind::Random] {
            let make = |seed| generator.content(kind, 10_001, &mut Random::new(seed));
            assert_eq!(make(1).len(), 10_001);
            assert_eq!(make(1), make(1));
            assert_ne!(make(1), make(2));
        }
    }

    #[test]
    fn sizes_stay_within_their_limits() {
        let mut random = Random::new(3);
        assert!((0..1000).map(|_| random.size(200, 16_000)).all(|s| (200..=16_000).contains(&s)));
    }
}
