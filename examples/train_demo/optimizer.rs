//! AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), a cosine schedule, and state that can
//! be saved: moments are plain lists beside the parameters.

/// What does not change while training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Learning rate at the end of the warm-up.
    pub(crate) peak: f64,
    /// Share of the peak that is left at the end.
    pub(crate) floor: f64,
    /// Steps over which the rate rises from zero.
    pub(crate) warmup: usize,
    /// Steps in all.
    pub(crate) steps: usize,
    pub(crate) beta_1: f64,
    pub(crate) beta_2: f64,
    pub(crate) eps: f64,
    /// Of matrices; vectors are not decayed.
    pub(crate) weight_decay: f64,
    /// Largest norm of the whole gradient.
    pub(crate) clip: f64,
}

impl Settings {
    /// Learning rate at a step, counted from 0: linear warm-up, then half a cosine down to `floor`·`peak`.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / self.warmup.max(1) as f64;
        if warm < 1.0 {
            return self.peak * warm;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = (step.saturating_sub(self.warmup) as f64 / rest).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// One parameter with its moments.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) values: Vec<f32>,
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    /// Whether it is a matrix, which decays.
    pub(crate) decays: bool,
}

/// Moves all parameters by one step against their gradients; returns the norm of the gradient before clipping.
pub(crate) fn step(settings: &Settings, step: usize, states: &mut [State], gradients: &[Vec<f32>]) -> f64 {
    let squares: f64 = gradients.iter().flatten().map(|g| f64::from(*g) * f64::from(*g)).sum();
    let norm = squares.sqrt();
    let clip = if norm > settings.clip { settings.clip / norm } else { 1.0 } as f32;
    let rate = settings.rate(step);
    let (b1, b2) = (settings.beta_1 as f32, settings.beta_2 as f32);
    let unbias = |beta: f64| 1.0 - beta.powi(i32::try_from(step + 1).unwrap_or(i32::MAX));
    let size = (rate / unbias(settings.beta_1)) as f32;
    let unbias_2 = (1.0 / unbias(settings.beta_2)) as f32;
    let eps = settings.eps as f32;
    for (state, gradient) in states.iter_mut().zip(gradients) {
        let keep = if state.decays { (1.0 - rate * settings.weight_decay) as f32 } else { 1.0 };
        let State { values, first, second, .. } = state;
        for (((x, m), v), g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
            let g = g * clip;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *x = *x * keep - size * *m / ((*v * unbias_2).sqrt() + eps);
        }
    }
    norm
}
