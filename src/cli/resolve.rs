//! A model as the user names it: a path with its steps, or a repository of the Hub, which is fetched.

use std::path::{Path, PathBuf};

use crate::{
    cousin::{self, Recipe},
    error::Result,
    hub::{Hub, HubId, RepoKind},
    progress::Progress,
};

/// Reads `PATH@STEP…` or `ORG/NAME[:FILE][@REVISION]@STEP…`; a path that exists never touches the network.
///
/// # Errors
/// An unknown step; a repository that cannot be fetched, or offline is not in the cache.
pub(super) fn model(given: &Path, offline: bool, progress: &dyn Progress) -> Result<Recipe> {
    let hub = given.to_str().and_then(|text| HubId::parse_prefix(text, RepoKind::Model, &cousin::is_step));
    let Some((id, steps)) = hub else { return Recipe::parse(given) };
    let path = Hub::from_environment(offline)?.fetch_model(&id, progress)?;
    let mut with_steps = path.into_os_string();
    with_steps.push(steps);
    Ok(Recipe::parse(&PathBuf::from(with_steps))?.named(&id.to_string()))
}
