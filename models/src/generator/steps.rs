//! The arithmetic of steps: which tokens are sampled together, from what, and what they see. No tensors.
//!
//! Position i of the network's input predicts token i; nothing is shifted. With a tokens one by one (4 as published) the input is
//!
//! ```text
//! class t0 .. t(a-2)            one token a step
//! t(a-1)  s0 .. s(a-2)          the level that starts at a
//! t(n/2) .. t(n-1)  s(n/2-1) .. s(n-2)   the level that starts at n = 2a, 4a, …: the tokens of the level before, then
//!                                        special tokens
//! ```
//!
//! and a position sees everything up to the end of its own step. Source: `Transformer.forward` in autoregressive/models/gpt_har.py.

use std::ops::Range;

/// Tokens that are sampled together: as many positions of the input, which see each other and all before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// First position.
    pub(crate) start: i64,
    /// Positions.
    pub(crate) tokens: i64,
    /// Tokens whose embeddings it reads, in front.
    pub(crate) read: Range<i64>,
    /// Special tokens that fill it up.
    pub(crate) special: Range<i64>,
}

impl Step {
    /// Positions that it sees.
    pub(crate) fn end(&self) -> i64 {
        self.start + self.tokens
    }

    /// Whether the class is its input.
    pub(crate) fn is_first(&self) -> bool {
        self.start == 0
    }
}

/// The steps of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    single: i64,
}

impl Steps {
    /// `tokens` tokens, the first `single` one by one and the rest by levels; all one by one for `None`.
    pub(crate) fn new(tokens: i64, single: Option<i64>) -> Self {
        let single = single.unwrap_or(tokens);
        let one = |start: i64| Step { start, tokens: 1, read: (start - 1).max(0)..start, special: 0..0 };
        let mut steps: Vec<_> = (0..single).map(one).collect();
        let mut start = single;
        while start < tokens {
            let (read, special) = match start == single {
                true => (start - 1..start, 0..start - 1),
                false => (start / 2..start, start / 2 - 1..start - 1),
            };
            steps.push(Step { start, tokens: start, read, special });
            start *= 2;
        }
        Self { steps, single }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// All of them in turn.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// Positions that are a step each, at the front.
    pub(crate) fn single(&self) -> i64 {
        self.single
    }

    /// Steps of several tokens.
    pub(crate) fn levels(&self) -> &[Step] {
        &self.steps[self.single as usize..]
    }

    /// Tokens of an image.
    pub(crate) fn tokens(&self) -> i64 {
        self.steps.last().map_or(0, Step::end)
    }

    /// Tokens that any step reads: the first so many.
    pub(crate) fn tokens_read(&self) -> i64 {
        self.steps.iter().map(|step| step.read.end).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The input as letters, c for the class, and what each position sees, by the published rule in its own words.
    fn published(tokens: usize, single: usize) -> (Vec<String>, Vec<usize>) {
        let (token, special) = (|place: usize| format!("t{place}"), |place: usize| format!("s{place}"));
        let mut input = vec!["c".to_owned()];
        input.extend((0..single).map(token));
        input.extend((0..single - 1).map(special));
        // The blocks of the nested hierarchy after the single tokens: each is followed by as many special tokens.
        let mut done = single;
        while done < tokens {
            input.extend((done..2 * done).map(token));
            input.extend((done - 1..2 * done - 1).map(special));
            done *= 2;
        }
        input.truncate(tokens);
        let seen = (0..tokens).map(|place| if place < single { place + 1 } else { (place + 1).next_power_of_two() });
        (input, seen.collect())
    }

    #[test]
    fn steps_are_the_published_input_and_mask() {
        for (tokens, single) in [(8, 1), (8, 2), (8, 4), (32, 1), (32, 4), (128, 4), (128, 64), (2, 1)] {
            let steps = Steps::new(tokens as i64, Some(single as i64));
            let (mut input, mut seen) = (Vec::new(), Vec::new());
            for step in steps.iter() {
                input.extend(step.is_first().then(|| "c".to_owned()));
                input.extend(step.read.clone().map(|place| format!("t{place}")));
                input.extend(step.special.clone().map(|place| format!("s{place}")));
                seen.extend((0..step.tokens).map(|_| step.end() as usize));
                assert_eq!((step.end() as usize, seen.len()), (input.len(), input.len()));
            }
            assert_eq!((input, seen), published(tokens, single), "{tokens} {single}");
            assert_eq!(steps.tokens_read(), tokens as i64 / 2);
        }
    }

    #[test]
    fn without_levels_every_step_is_one_token() {
        let steps = Steps::new(16, None);
        assert_eq!((steps.len(), steps.levels().len(), steps.tokens_read()), (16, 0, 15));
        assert!(steps.iter().all(|step| step.tokens == 1 && step.special.is_empty()));
    }
}
