//! stub
/// stub
pub fn document(comparison: &crate::comparison::Comparison) -> String {
    super::wording::headline(comparison)
}
