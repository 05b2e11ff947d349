//! A mixture of experts: a router chooses some of many MLPs for every token.

use candle_core::{Result, Tensor};

use super::{context::Context, linear::Linear, mlp::Mlp, weights::EXPERTS};
use crate::checkpoint::config::{Experts as Config, Scoring};

/// Experts with their weights decoded.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    pub(super) config: Config,
    pub(super) router: Linear,
    /// Added to the scores for the choice alone, `[num_experts]`.
    pub(super) correction: Option<Vec<f32>>,
    pub(super) experts: Vec<Mlp>,
    pub(super) shared: Option<Mlp>,
    pub(super) shared_gate: Option<Linear>,
}

/// Which experts a token goes through, with their weights.
type Choice = Vec<(u32, f32)>;

impl Experts {
    /// `[n, hidden]` → `[n, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, context: &mut Context) -> Result<Tensor> {
        let choices = self.choices(&context.linear(&self.router, x)?)?;
        if let Some(seen) = &mut context.seen {
            for choice in &choices {
                let mut experts: Vec<u32> = choice.iter().map(|(expert, _)| *expert).collect();
                experts.sort_unstable();
                seen.experts.extend(experts);
            }
        }
        let routed = self.routed(x, &choices, context)?;
        context.saw(EXPERTS, x, &routed);
        let Some(shared) = &self.shared else { return Ok(routed) };
        let common = shared.forward(x, |linear, x| context.linear(linear, x))?;
        let common = match &self.shared_gate {
            Some(gate) => common.broadcast_mul(&candle_nn::ops::sigmoid(&context.linear(gate, x)?)?)?,
            None => common,
        };
        routed + common
    }

    /// What all routed experts make of an input, by this router.
    pub(super) fn routed_alone(&self, x: &Tensor, context: &mut Context) -> Result<Tensor> {
        let logits = context.rounding.apply(self.router.forward(x, &context.geometry.rows)?)?;
        self.routed(x, &self.choices(&logits)?, context)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let shared = self.shared.iter().flat_map(Mlp::linears);
        std::iter::once(&self.router).chain(shared).chain(&self.shared_gate)
    }

    /// Every expert takes the rows that chose it at once.
    fn routed(&self, x: &Tensor, choices: &[Choice], context: &Context) -> Result<Tensor> {
        let per_row = self.config.num_experts_per_tok;
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); self.experts.len()];
        // Where the result of a row's n-th expert will lie.
        let mut places = vec![0u32; choices.len() * per_row];
        let mut slots: Vec<Vec<usize>> = vec![Vec::new(); self.experts.len()];
        for (row, choice) in choices.iter().enumerate() {
            for (rank, (expert, _)) in choice.iter().enumerate() {
                rows_of[*expert as usize].push(row as u32);
                slots[*expert as usize].push(row * per_row + rank);
            }
        }
        let mut results = Vec::new();
        let mut done = 0;
        for (expert, rows) in rows_of.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            for slot in &slots[expert] {
                places[*slot] = done;
                done += 1;
            }
            let index = Tensor::from_slice(rows, rows.len(), x.device())?;
            let requests = requests_within(rows, context);
            let product = |linear: &Linear, x: &Tensor| context.rounding.apply(linear.forward(x, &requests)?);
            results.push(self.experts[expert].forward(&x.index_select(&index, 0)?, product)?);
        }
        let hidden = x.dim(1)?;
        let weights: Vec<f32> = choices.iter().flatten().map(|(_, weight)| *weight).collect();
        let weights = Tensor::from_vec(weights, (choices.len(), per_row, 1), x.device())?;
        let places = Tensor::from_vec(places, choices.len() * per_row, x.device())?;
        let chosen = Tensor::cat(&results, 0)?.index_select(&places, 0)?;
        chosen.reshape((choices.len(), per_row, hidden))?.broadcast_mul(&weights)?.sum(1)
    }

    /// From the router's logits `[n, num_experts]`.
    fn choices(&self, logits: &Tensor) -> Result<Vec<Choice>> {
        let rows = logits.to_vec2::<f32>()?;
        Ok(rows.iter().map(|logits| choose(&self.config, self.correction.as_deref(), logits)).collect())
    }
}

/// How many of an expert's rows belong to each request: a scheme that looks at a whole request sees of it what the
/// expert sees.
fn requests_within(rows: &[u32], context: &Context) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    let of_request = |request: &std::ops::Range<usize>| {
        let end = start + rows[start..].iter().take_while(|row| (**row as usize) < request.end).count();
        let span = start..end;
        start = end;
        span
    };
    context.geometry.rows.iter().map(of_request).collect()
}

/// The experts of one token. Of equals the first wins.
fn choose(config: &Config, correction: Option<&[f32]>, logits: &[f32]) -> Choice {
    let scores: Vec<f32> = match config.scoring {
        Scoring::Softmax => softmax(logits),
        Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Scoring::SoftmaxOfChosen => logits.to_vec(),
    };
    let mut judged = scores.clone();
    if let Some(correction) = correction {
        judged.iter_mut().zip(correction).for_each(|(score, correction)| *score += correction);
    }
    if let Some(groups) = config.groups {
        let size = config.num_experts / groups.n_group;
        let of_group = |group: &[f32]| {
            let best = best(group, groups.best);
            best.iter().map(|index| group[*index]).sum::<f32>()
        };
        let sums: Vec<f32> = judged.chunks(size).map(of_group).collect();
        let kept = best(&sums, groups.topk_group);
        for (group, scores) in judged.chunks_mut(size).enumerate() {
            if !kept.contains(&group) {
                scores.fill(f32::NEG_INFINITY);
            }
        }
    }
    let chosen = best(&judged, config.num_experts_per_tok);
    let mut weights: Vec<f32> = chosen.iter().map(|expert| scores[*expert]).collect();
    if config.scoring == Scoring::SoftmaxOfChosen {
        weights = softmax(&weights);
    }
    if config.norm_topk_prob {
        let sum: f32 = weights.iter().sum::<f32>() + f32::MIN_POSITIVE;
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let scale = config.routed_scaling_factor as f32;
    chosen.into_iter().zip(weights).map(|(expert, weight)| (expert as u32, weight * scale)).collect()
}

/// Indices of the largest, largest first; NaN counts as the largest, so that it is not lost.
fn best(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order.truncate(count);
    order
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|x| x / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::{Activation, Groups, Mlp as MlpConfig};

    fn config(num_experts: usize, num_experts_per_tok: usize, scoring: Scoring) -> Config {
        let activation = Activation::Silu;
        Config {
            num_experts,
            num_experts_per_tok,
            expert: MlpConfig { intermediate_size: 1, activation, gated: true, bias: false },
            scoring,
            norm_topk_prob: false,
            routed_scaling_factor: 1.0,
            groups: None,
            correction_bias: false,
            router_bias: false,
            shared: None,
        }
    }

    fn ids(choice: &Choice) -> Vec<u32> {
        choice.iter().map(|(expert, _)| *expert).collect()
    }

    #[test]
    fn weights_are_the_router_s_probabilities() {
        let logits = [1f32.ln(), 4f32.ln(), 2f32.ln(), 3f32.ln()];
        let choice = choose(&config(4, 2, Scoring::Softmax), None, &logits);
        assert_eq!(ids(&choice), [1, 3]);
        assert!((choice[0].1 - 0.4).abs() < 1e-6 && (choice[1].1 - 0.3).abs() < 1e-6);
        let normed =
            Config { norm_topk_prob: true, routed_scaling_factor: 7.0, ..config(4, 2, Scoring::Softmax) };
        let choice = choose(&normed, None, &logits);
        assert!((choice[0].1 - 4.0).abs() < 1e-5 && (choice[1].1 - 3.0).abs() < 1e-5);
        // The softmax of the chosen is the same as norming them.
        let chosen = choose(&config(4, 2, Scoring::SoftmaxOfChosen), None, &logits);
        assert!((chosen[0].1 - 4.0 / 7.0).abs() < 1e-6);
    }

    #[test]
    fn a_correction_changes_the_choice_and_no_weight() {
        let corrected = choose(&config(3, 1, Scoring::Sigmoid), Some(&[0.0, 0.0, 1.0]), &[2.0, 1.0, 0.0]);
        assert_eq!(corrected, [(2, 0.5)]);
    }

    #[test]
    fn groups_are_chosen_by_the_sum_of_their_best() {
        let groups = |best| Some(Groups { n_group: 2, topk_group: 1, best });
        let logits = [0.9, 0.0, 0.0, 0.5, 0.6, 0.4];
        let by = |best| {
            ids(&choose(
                &Config { groups: groups(best), ..config(6, 2, Scoring::SoftmaxOfChosen) },
                None,
                &logits,
            ))
        };
        assert_eq!(by(1), [0, 1], "the best single expert is in the first group");
        assert_eq!(by(2), [4, 3], "the best two are in the second");
    }
}
