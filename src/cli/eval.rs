//! `qeval eval`: one model alone, by the road that `compare` takes.

use super::{
    EvalArgs, Outcome, Probe, ProbeTokens,
    compare::{self, Look},
    terminal,
};
use crate::error::Result;

pub(super) fn command(args: &EvalArgs, quiet: bool) -> Result<Outcome> {
    // Nothing is compared, so there is nothing to probe.
    let look = Look {
        probe: Probe::None,
        probe_tokens: ProbeTokens::AtLeast(0),
        noise_floor: false,
        hash: !args.no_hash,
    };
    let how = (&args.selection, &args.measuring);
    let (comparison, written) = compare::measure(&args.model, &[], how, look, &terminal::Bar::new(quiet))?;
    compare::finish(&comparison, &written, &args.measuring, quiet)
}
