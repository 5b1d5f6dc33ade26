//! Chooses tokens from logits.

use burn::tensor::{Int, Tensor};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::ModelError;
use super::io::Sampling;

/// Chooses a token from each row of `logits`. Where all are greedy, only the tokens leave the device.
pub(super) fn sample(logits: Tensor<2>, samplings: &[Sampling]) -> Result<Vec<u32>, ModelError> {
    let [_, vocab_size] = logits.dims();
    let failed = |error: &dyn std::fmt::Display| ModelError::Execution(error.to_string());
    if samplings.iter().all(Sampling::is_greedy) {
        let tokens: Tensor<2, Int> = logits.argmax(1);
        let tokens = tokens.try_to_vec_as::<i32>().map_err(|error| failed(&error))?;
        return Ok(tokens.into_iter().map(|token| token as u32).collect());
    }
    let logits = logits.try_to_vec_as::<f32>().map_err(|error| failed(&error))?;
    Ok(logits.chunks(vocab_size).zip(samplings).map(|(row, sampling)| sample_row(row, sampling)).collect())
}

fn sample_row(logits: &[f32], sampling: &Sampling) -> u32 {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |token: &u32| logits[*token as usize];
    // Ties go to the lower token, as `argmax` does, so that one order serves both.
    tokens.sort_unstable_by(|a, b| logit(b).total_cmp(&logit(a)).then(a.cmp(b)));
    if sampling.is_greedy() {
        return tokens[0];
    }
    tokens.truncate(sampling.top_k.map_or(usize::MAX, |top_k| top_k as usize));
    let max = f64::from(logit(&tokens[0]));
    // Relative to the maximum before dividing, so that no temperature, however low, overflows.
    let weights = tokens.iter().map(|token| ((f64::from(logit(token)) - max) / sampling.temperature).exp());
    let mut weights: Vec<f64> = weights.collect();
    truncate_to_mass(&mut weights, sampling.top_p);
    let mut rest = uniform(sampling) * weights.iter().sum::<f64>();
    let chosen = weights.iter().position(|weight| {
        rest -= weight;
        rest < 0.0
    });
    // Rounding can leave a rest behind the last weight.
    tokens[chosen.unwrap_or(weights.len() - 1)]
}

/// Keeps the first weights, in falling order, that reach the share `top_p` of their sum; at least one.
fn truncate_to_mass(weights: &mut Vec<f64>, top_p: f64) {
    if top_p < 1.0 {
        let mut mass = top_p * weights.iter().sum::<f64>();
        let keep = weights.iter().position(|weight| {
            mass -= weight;
            mass <= 0.0
        });
        weights.truncate(keep.map_or(weights.len(), |last| last + 1));
    }
}

/// In [0, 1), from the seed and the position alone: whatever batch the sequence is in, and after a preemption as well.
fn uniform(sampling: &Sampling) -> f64 {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(sampling.seed);
    let position_seed = rng.random::<u64>() ^ sampling.position;
    Xoshiro256PlusPlus::seed_from_u64(position_seed).random()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 3.0, 1.0, 2.0, 3.0];

    fn draws(sampling: Sampling) -> Vec<u32> {
        (0..2000).map(|position| sample_row(&LOGITS, &Sampling { position, ..sampling })).collect()
    }

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, top_p: 1.0, top_k: None, seed: 7, position: 0 }
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let total: f64 = LOGITS.iter().map(|logit| f64::from(*logit).exp()).sum();
        let drawn = draws(sampling());
        for (token, logit) in LOGITS.iter().enumerate() {
            let share = drawn.iter().filter(|&&drawn| drawn == token as u32).count() as f64 / drawn.len() as f64;
            let probability = f64::from(*logit).exp() / total;
            assert!((share - probability).abs() < 0.04, "token {token}: {share} instead of {probability}");
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest() {
        let within = |sampling, allowed: &[u32]| draws(sampling).iter().all(|token| allowed.contains(token));
        assert!(within(Sampling { top_k: Some(2), ..sampling() }, &[1, 4]));
        assert!(within(Sampling { top_p: 0.5, ..sampling() }, &[1, 4]));
        assert!(within(Sampling { top_p: 1e-9, ..sampling() }, &[1]));
        assert!(within(Sampling { top_k: Some(1), ..sampling() }, &[1]));
        assert!(within(Sampling { temperature: 0.0, ..sampling() }, &[1]), "a tie goes to the lower token");
        assert!(within(Sampling { temperature: 1e-300, ..sampling() }, &[1, 4]));
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_alone() {
        assert_eq!(draws(sampling()), draws(sampling()));
        assert_ne!(draws(sampling()), draws(Sampling { seed: 8, ..sampling() }));
        let drawn = draws(sampling());
        assert!(drawn.windows(8).any(|run| run != &drawn[..8]), "positions draw different numbers");
    }
}
