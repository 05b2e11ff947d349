//! How much a template may cost: a size for every value, a sum for all work, and an engine that asks before it grows.
//!
//! The engine counts instructions, but one instruction can double a string: thirty of them fill a memory. So the
//! compiled template is rewritten before it runs. Every instruction that makes a larger value out of others becomes a
//! call to a function of `operators.rs`, which measures first; literal text goes the way of printed values, which are
//! counted; and what is stored in a namespace is measured, so that nothing grows there either.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::{
    Error, ErrorKind, Value,
    machinery::{Instruction, Instructions},
    value::ValueKind,
};

/// Longest template, in bytes; the longest in circulation have about 30 000. The engine counts lines and arguments
/// in 16 bits, which this stays below.
pub(super) const MAX_SOURCE: usize = 100_000;
/// Most characters of one tag outside its strings, and most `elif` of a template: the engine descends once for each.
pub(super) const MAX_TAG: usize = 1_500;
/// Most signs before one operand; see [`MAX_TAG`].
pub(super) const MAX_SIGNS: usize = 20;
/// See [`MAX_TAG`].
pub(super) const MAX_ELIF: usize = 100;
/// Largest value and largest output, in bytes, each value within it counted with [`NODE`].
pub(super) const MAX_VALUE: usize = 32 << 20;
/// Bytes that may be touched while rendering: so many, and so many more for each byte of the conversation.
const MAX_WORK: u64 = 1 << 28;
const WORK_PER_BYTE: u64 = 1 << 10;
/// Instructions of the engine.
pub(super) const MAX_STEPS: u64 = 2_000_000;
/// Depth of macros within macros and loops within loops; a macro counts as four.
pub(super) const MAX_RECURSION: usize = 100;
/// Lists within lists.
const MAX_DEPTH: usize = 32;
/// Bytes that a value counts for besides its text.
const NODE: usize = 32;

/// What is left of the work that one rendering may do.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    /// For a conversation of so many bytes.
    pub(super) fn new(conversation: usize) -> Self {
        let bytes = u64::try_from(conversation).unwrap_or(u64::MAX);
        Self(AtomicU64::new(MAX_WORK.saturating_add(bytes.saturating_mul(WORK_PER_BYTE))))
    }

    /// Takes `work` bytes away.
    pub(super) fn spend(&self, work: usize) -> Result<(), Error> {
        let work = u64::try_from(work).unwrap_or(u64::MAX);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(work));
        taken.map(drop).map_err(|_| error("more work than a prompt can need"))
    }

    /// Size of a value; its length in bytes is spent.
    pub(super) fn measure(&self, value: &Value) -> Result<usize, Error> {
        let mut size = 0;
        add_size(value, 0, &mut size)?;
        self.spend(size)?;
        Ok(size)
    }

    /// Sum of the sizes of all, spent.
    pub(super) fn measure_all(&self, values: &[Value]) -> Result<usize, Error> {
        values.iter().try_fold(0_usize, |sum, value| Ok(sum.saturating_add(self.measure(value)?)))
    }

    /// Refuses a result of `size` bytes if that is too large; spends it otherwise.
    pub(super) fn allow(&self, size: usize) -> Result<(), Error> {
        if size > MAX_VALUE {
            return Err(too_large());
        }
        self.spend(size)
    }

    /// A result, measured, and made a list if the engine would work it out anew each time it is used.
    pub(super) fn keep(&self, value: Value) -> Result<Value, Error> {
        let value = match value.kind() {
            ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()?.checked() {
                    self.spend(NODE)?;
                    items.push(item?);
                }
                Value::from(items)
            }
            _ => value,
        };
        self.measure(&value)?;
        Ok(value)
    }
}

pub(super) fn error(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn too_large() -> Error {
    error("a value larger than a prompt can be")
}

/// Whether this is what `namespace()` returns. The engine does not say, except by the name of the type.
pub(super) fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Adds the size of `value`. A namespace within a value is refused: it could hold itself, and then nothing that
/// walks through values would end.
fn add_size(value: &Value, depth: usize, size: &mut usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(error("lists nested too deeply"));
    }
    if depth > 0 && is_namespace(value) {
        return Err(error("a namespace inside another value is not supported"));
    }
    let text = value.as_str().map_or(0, str::len).max(value.as_bytes().map_or(0, <[u8]>::len));
    *size = size.saturating_add(text).saturating_add(NODE);
    if *size > MAX_VALUE {
        return Err(too_large());
    }
    match (value.kind(), value.as_object()) {
        (ValueKind::Map, Some(object)) => {
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                add_size(&key, depth + 1, size)?;
                add_size(&item, depth + 1, size)?;
            }
        }
        (ValueKind::Seq | ValueKind::Iterable, Some(object)) => {
            for item in object.try_iter().into_iter().flatten() {
                add_size(&item, depth + 1, size)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The functions that take the place of instructions. No template can name them: a name has no space.
pub(super) mod name {
    pub(crate) const ADD: &str = " +";
    pub(crate) const MUL: &str = " *";
    pub(crate) const REM: &str = " %";
    pub(crate) const CONCAT: &str = " ~";
    pub(crate) const SLICE: &str = " [:]";
    pub(crate) const ITEM: &str = " []";
    pub(crate) const ITERATE: &str = " for";
    pub(crate) const LIST: &str = " list";
    pub(crate) const TUPLE: &str = " tuple";
    pub(crate) const MAP: &str = " map";
    pub(crate) const HOLD: &str = " hold";
    pub(crate) const COMPARE: [&str; 8] = [" ==", " !=", " <", " <=", " >", " >=", " in", " not in"];
    pub(crate) const CHAIN: [&str; 8] = [" ==,", " !=,", " <,", " <=,", " >,", " >=,", " in,", " not in,"];
}

/// The same program, with every instruction that can make a value grow, or that walks through values, replaced.
///
/// # Errors
/// With the line: what belongs to several templates, and a literal with more parts than a call can have arguments.
pub(super) fn bounded<'s>(code: &Instructions<'s>) -> Result<Instructions<'s>, (Option<usize>, Error)> {
    let mut groups = Vec::new();
    let mut moved = Vec::new();
    let mut next = 0_u32;
    while let Some(instruction) = u32::try_from(groups.len()).ok().and_then(|index| code.get(index)) {
        let line = || u32::try_from(groups.len()).ok().and_then(|index| code.get_line(index));
        let group = replacement(instruction).map_err(|error| (line(), error))?;
        moved.push(next);
        let length = u32::try_from(group.len()).ok();
        next = length.and_then(|n| next.checked_add(n)).ok_or_else(|| (line(), too_large()))?;
        groups.push(group);
    }
    // A jump may lead behind the last instruction.
    moved.push(next);
    let target = |old: u32| moved.get(old as usize).copied().unwrap_or(next);
    let mut out = Instructions::new(code.name(), code.source());
    for (index, group) in groups.into_iter().enumerate() {
        let line = u32::try_from(index).ok().and_then(|index| code.get_line(index));
        for instruction in group {
            let instruction = match instruction {
                Instruction::Iterate(to) => Instruction::Iterate(target(to)),
                Instruction::Jump(to) => Instruction::Jump(target(to)),
                Instruction::JumpIfFalse(to) => Instruction::JumpIfFalse(target(to)),
                Instruction::JumpIfFalseOrPop(to) => Instruction::JumpIfFalseOrPop(target(to)),
                Instruction::JumpIfTrueOrPop(to) => Instruction::JumpIfTrueOrPop(target(to)),
                Instruction::BuildMacro(name, to, flags) => Instruction::BuildMacro(name, target(to), flags),
                other => other,
            };
            match line.and_then(|line| u16::try_from(line).ok()) {
                Some(line) => out.add_with_line(instruction, line),
                None => out.add(instruction),
            };
        }
    }
    Ok(out)
}

fn replacement<'s>(instruction: &Instruction<'s>) -> Result<Vec<Instruction<'s>>, Error> {
    use Instruction as I;
    let call = |name: &'static str, arguments: usize| {
        let arguments = u16::try_from(arguments).map_err(|_| error("a literal with too many parts"))?;
        Ok(vec![Instruction::CallFunction(name, Some(arguments))])
    };
    let [eq, ne, lt, le, gt, ge, within, _] = name::COMPARE;
    match instruction {
        I::Add => call(name::ADD, 2),
        I::Mul => call(name::MUL, 2),
        I::Rem => call(name::REM, 2),
        I::StringConcat => call(name::CONCAT, 2),
        I::Slice => call(name::SLICE, 4),
        I::GetItem => call(name::ITEM, 2),
        I::BuildList(Some(n)) => call(name::LIST, *n),
        I::BuildTuple(Some(n)) => call(name::TUPLE, *n),
        I::BuildMap(n) => call(name::MAP, n.saturating_mul(2)),
        I::Eq => call(eq, 2),
        I::Ne => call(ne, 2),
        I::Lt => call(lt, 2),
        I::Lte => call(le, 2),
        I::Gt => call(gt, 2),
        I::Gte => call(ge, 2),
        I::In => call(within, 2),
        // `a < b < c`: the function returns the pair (whether a < b, b), which goes onto the stack in that order.
        I::CompareAndPreserve(op) => {
            let name = name::CHAIN.get(*op as usize).ok_or_else(|| error("an unknown comparison"))?;
            Ok(vec![I::CallFunction(name, Some(2)), I::UnpackList(2)])
        }
        I::PushLoop(_) => Ok(vec![I::CallFunction(name::ITERATE, Some(1)), instruction.clone()]),
        I::EmitRaw(text) => Ok(vec![I::LoadConst(Value::from(*text)), I::Emit]),
        I::SetAttr(attribute) => {
            Ok(vec![I::Swap, I::CallFunction(name::HOLD, Some(1)), I::Swap, I::SetAttr(attribute)])
        }
        // These would lead to instructions that are not replaced.
        I::LoadBlocks | I::Include(_) | I::ExportLocals | I::CallBlock(_) | I::FastSuper => {
            Err(error("block, extends, include and import are not supported"))
        }
        I::PushAutoEscape => Err(error("autoescape is not supported")),
        other => Ok(vec![other.clone()]),
    }
}
