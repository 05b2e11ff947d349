//! What a reader is told where settings and tensors of a packed matrix do not agree: the same words for all packings.

/// Tensors that are recognised, but nothing that says how activations are treated.
pub(in crate::checkpoint) fn without_settings(module: &str) -> String {
    format!("{module}: packed, but no quantization settings were found; its activations are left as they are")
}

/// Settings that say one thing and tensors that say another.
pub(in crate::checkpoint) fn contradiction(module: &str, settings: &str, tensors: &str) -> String {
    format!("{module}: the settings say {settings}, the tensors say {tensors}; the tensors are believed")
}
