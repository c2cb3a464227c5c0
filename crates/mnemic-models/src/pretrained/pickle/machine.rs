//! The few opcodes of pickles that state dicts are made of. Nothing that a pickle names is ever called: known names stand for
//! values of this file, every other name is an error.
//!
//! The opcodes are those of Python's `pickletools`, protocols 2 to 5.

use std::collections::HashMap;

use candle_core::DType;

use super::values::{Id, Known, Step, Storage, Value, Values, View};
use crate::error::shown;

/// Reads a pickle and gives its values and which of them is the result.
///
/// # Errors
/// When it is cut off, malformed, or uses an opcode or a name that state dicts do not have, with the position.
pub(super) fn run(bytes: &[u8]) -> Step<(Values<'_>, Id)> {
    let mut machine = Machine { bytes, ..Machine::default() };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(result)) => return Ok((machine.values, result)),
            Err(reason) => return Err(format!("pickle, byte {at}: {reason}")),
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Values<'a>,
    stack: Vec<Id>,
    /// Heights of the stack where marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// One opcode; the result after the last.
    fn step(&mut self) -> Step<Option<Id>> {
        match self.byte()? {
            0x80 => self.protocol()?,
            // A frame only groups opcodes.
            0x95 => _ = self.take(8)?,
            b'.' => return self.stop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_to_mark()?,
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory()?,
            b'c' => self.global()?,
            0x93 => self.stack_global()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            b'a' | b'e' => self.append()?,
            b's' | b'u' => self.set_items()?,
            b't' | b')' | 0x85..=0x87 => self.make_tuple()?,
            code => {
                let value = self.constant(code)?;
                self.push(value)?;
            }
        }
        Ok(None)
    }

    /// The opcodes that are followed by their value.
    fn constant(&mut self, code: u8) -> Step<Value<'a>> {
        Ok(match code {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Opaque("a truth value"),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => {
                let length = self.byte()?.into();
                long(self.take(length)?)
            }
            b'G' => {
                self.take(8)?;
                Value::Opaque("a floating-point number")
            }
            b'X' => self.string(4)?,
            0x8c => self.string(1)?,
            0x8d => self.string(8)?,
            b'C' => self.blob(1)?,
            b'B' => self.blob(4)?,
            0x8e => self.blob(8)?,
            other => {
                let letter = char::from(other).escape_default();
                return Err(format!("opcode {other:#04x} ({letter}), which no state dict needs"));
            }
        })
    }

    fn protocol(&mut self) -> Step<()> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(format!("expected protocol 2 to 5, got {other}")),
        }
    }

    fn stop(&mut self) -> Step<Id> {
        let result = self.pop()?;
        match (self.stack.len() + self.marks.len(), self.bytes.len() - self.at) {
            (0, 0) => Ok(result),
            (0, over) => Err(format!("{over} bytes follow the end")),
            (left, _) => Err(format!("{left} values are left over")),
        }
    }

    /// Puts the top of the stack into the memo, or a value of the memo onto the stack.
    fn memory(&mut self) -> Step<()> {
        let code = self.bytes[self.at - 1];
        let key = match code {
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| "the memo is full".to_string())?,
        };
        if matches!(code, b'h' | b'j') {
            let id = self.memo.get(&key).ok_or_else(|| format!("memo {key} holds nothing"))?;
            self.stack.push(*id);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn global(&mut self) -> Step<()> {
        let module = self.line()?;
        let name = self.line()?;
        self.known(module, name)
    }

    fn stack_global(&mut self) -> Step<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        self.known(self.values.text(module)?, self.values.text(name)?)
    }

    fn known(&mut self, module: &str, name: &str) -> Step<()> {
        match Known::named(module, name) {
            Some(known) => self.push(Value::Known(known)),
            None => {
                let (module, name) = (shown(module), shown(name));
                Err(format!(
                    "asks for `{module}.{name}`; only tensors of common types in plain dicts are \
                     read, and nothing is executed"
                ))
            }
        }
    }

    fn reduce(&mut self) -> Step<()> {
        let (args, function) = (self.pop()?, self.pop()?);
        let args = self.values.tuple(args)?;
        let value = match (self.values.get(function), args) {
            (Value::Known(Known::OrderedDict), []) => Value::Dict(Vec::new()),
            (
                Value::Known(Known::RebuildTensor2),
                [storage, offset, shape, stride, _, _] | [storage, offset, shape, stride, _, _, _],
            ) => self.view([*storage, *offset, *shape, *stride], None)?,
            (
                Value::Known(Known::RebuildTensor3),
                [storage, offset, shape, stride, _, _, dtype]
                | [storage, offset, shape, stride, _, _, dtype, _],
            ) => match self.values.get(*dtype) {
                Value::Known(Known::DType(dtype)) => {
                    self.view([*storage, *offset, *shape, *stride], Some(*dtype))?
                }
                other => return Err(format!("expected a type, got {}", other.kind())),
            },
            (Value::Known(Known::RebuildParameter), [data, _, _]) => {
                let data = *data;
                return match self.values.get(data) {
                    Value::Tensor(_) => {
                        self.stack.push(data);
                        Ok(())
                    }
                    other => Err(format!("a parameter of {}, expected a tensor", other.kind())),
                };
            }
            (Value::Known(known), args) => {
                return Err(format!("{known:?} with {} arguments, which is not known", args.len()));
            }
            (other, _) => return Err(format!("expected a function, got {}", other.kind())),
        };
        self.push(value)
    }

    /// The tensor of a storage, an offset, sizes and strides.
    fn view(
        &self,
        [storage, offset, shape, stride]: [Id; 4],
        dtype: Option<DType>,
    ) -> Step<Value<'a>> {
        let values = &self.values;
        let storage = match values.get(storage) {
            Value::Storage(storage) => *storage,
            other => return Err(format!("expected a storage, got {}", other.kind())),
        };
        let offset = values.size(offset)?;
        let (shape, stride) = (values.sizes(shape)?, values.sizes(stride)?);
        let (dtype, bytes) = match (storage.dtype, dtype) {
            (Some(own), None) => (own, storage.length.checked_mul(own.size_in_bytes())),
            (None, Some(dtype)) => (dtype, Some(storage.length)),
            _ => return Err("a type that is said twice or not at all".to_string()),
        };
        let bytes = bytes.ok_or_else(|| format!("a storage of {} elements", storage.length))?;
        let view = View { key: storage.key, dtype, bytes, offset, shape, stride };
        view.check()?;
        Ok(Value::Tensor(view))
    }

    /// `('storage', class, key, place, elements)`.
    fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let parts = self.values.tuple(id)?;
        let ([kind, class, key, _, length] | [kind, class, key, _, length, _]) = parts else {
            return Err(format!("expected a storage of 5 parts, got {}", parts.len()));
        };
        if self.values.text(*kind)? != "storage" {
            return Err("expected a storage".to_string());
        }
        let dtype = match self.values.get(*class) {
            Value::Known(Known::Storage(dtype)) => *dtype,
            other => return Err(format!("expected a storage's class, got {}", other.kind())),
        };
        let (key, length) = (self.values.text(*key)?, self.values.size(*length)?);
        self.push(Value::Storage(Storage { key, dtype, length }))
    }

    /// What `OrderedDict` keeps beside its items (torch's `_metadata`) is dropped.
    fn build(&mut self) -> Step<()> {
        let _state = self.pop()?;
        match self.values.get(self.top()?) {
            Value::Dict(_) => Ok(()),
            other => Err(format!("a state for {}", other.kind())),
        }
    }

    fn append(&mut self) -> Step<()> {
        let items = match self.bytes[self.at - 1] {
            b'a' => vec![self.pop()?],
            _ => self.pop_to_mark()?,
        };
        let top = self.top()?;
        match self.values.get_mut(top) {
            Value::List(list) => list.extend(items),
            other => return Err(format!("expected a list, got {}", other.kind())),
        }
        Ok(())
    }

    fn set_items(&mut self) -> Step<()> {
        let items = match self.bytes[self.at - 1] {
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.pop_to_mark()?,
        };
        if items.len() % 2 != 0 {
            return Err("a key without a value".to_string());
        }
        let top = self.top()?;
        match self.values.get_mut(top) {
            Value::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            other => return Err(format!("expected a dict, got {}", other.kind())),
        }
        Ok(())
    }

    fn make_tuple(&mut self) -> Step<()> {
        let items = match self.bytes[self.at - 1] {
            b't' => self.pop_to_mark()?,
            b')' => Vec::new(),
            code => {
                let mut items = Vec::with_capacity(3);
                for _ in 0..code - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        self.push(Value::Tuple(items))
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        let id = self.values.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(top) if self.stack.len() > floor => Ok(*top),
            _ => Err("nothing is on the stack".to_string()),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let height = self.marks.pop().ok_or("no mark is set")?;
        Ok(self.stack.split_off(height))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "cut off".to_string())
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let piece = rest
            .get(..count)
            .ok_or_else(|| format!("cut off: expected {count} bytes more, got {}", rest.len()))?;
        self.at += count;
        Ok(piece)
    }

    /// As many bytes as a number of `width` bytes says.
    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        let length = u64::from_le_bytes(length);
        self.take(usize::try_from(length).map_err(|_| format!("cut off: {length} bytes"))?)
    }

    fn string(&mut self, width: usize) -> Step<Value<'a>> {
        let bytes = self.counted(width)?;
        Ok(Value::Text(std::str::from_utf8(bytes).map_err(|e| format!("expected UTF-8: {e}"))?))
    }

    fn blob(&mut self, width: usize) -> Step<Value<'a>> {
        self.counted(width)?;
        Ok(Value::Opaque("a string of bytes"))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or("cut off within a name")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|e| format!("expected UTF-8: {e}"))
    }
}

/// An integer of any length, in two's complement; what does not fit into 64 bits is no size.
fn long(bytes: &[u8]) -> Value<'static> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    match all.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(all))
        }
        None => Value::Opaque("an integer of more than 64 bits"),
    }
}
