//! stub
pub(super) mod escape;
/// stub
pub fn document(comparison: &crate::comparison::Comparison) -> String {
    super::wording::headline(comparison)
}
