//! The values that a pickle can make, and the tensors among them.

use candle_core::DType;

use super::super::bytes::elements;

/// A result whose error says what was found and what was expected.
pub(super) type Step<T> = std::result::Result<T, String>;

/// The most values that a pickle may make; a state dict of 100,000 tensors makes about 1.5 million.
const MAX_VALUES: usize = 1 << 21;
/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// The place of a value in [`Values`]. Values refer to each other by place, so a list that holds itself is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

/// A value of a pickle.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Int(i64),
    Text(&'a str),
    /// What no state dict needs the value of.
    Opaque(&'static str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Known(Known),
    Storage(Storage<'a>),
    Tensor(View<'a>),
}

impl Value<'_> {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Int(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Opaque(kind) => kind,
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Known(_) => "a class or function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// The numbers behind tensors: an entry `data/KEY` of the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    /// `None` where the tensor says of what type the bytes are.
    pub(super) dtype: Option<DType>,
    /// Elements, or bytes where there is no type.
    pub(super) length: usize,
}

/// A tensor within a storage; offset, sizes and strides count elements and stay within the storage.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: DType,
    /// Bytes of the whole storage.
    pub(super) bytes: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// The names that mean something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor2,
    RebuildTensor3,
    RebuildParameter,
    Storage(Option<DType>),
    DType(DType),
}

impl Known {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor2,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensor3,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => {
                Self::Storage(None)
            }
            ("torch", "DoubleStorage") => Self::Storage(Some(DType::F64)),
            ("torch", "FloatStorage") => Self::Storage(Some(DType::F32)),
            ("torch", "HalfStorage") => Self::Storage(Some(DType::F16)),
            ("torch", "BFloat16Storage") => Self::Storage(Some(DType::BF16)),
            ("torch", "LongStorage") => Self::Storage(Some(DType::I64)),
            ("torch", "IntStorage") => Self::Storage(Some(DType::I32)),
            ("torch", "ShortStorage") => Self::Storage(Some(DType::I16)),
            ("torch", "ByteStorage" | "BoolStorage") => Self::Storage(Some(DType::U8)),
            ("torch", "float64") => Self::DType(DType::F64),
            ("torch", "float32") => Self::DType(DType::F32),
            ("torch", "float16") => Self::DType(DType::F16),
            ("torch", "bfloat16") => Self::DType(DType::BF16),
            ("torch", "int64") => Self::DType(DType::I64),
            ("torch", "int32") => Self::DType(DType::I32),
            ("torch", "int16") => Self::DType(DType::I16),
            ("torch", "uint8" | "bool") => Self::DType(DType::U8),
            _ => return None,
        })
    }
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values<'a>(Vec<Value<'a>>);

impl<'a> Values<'a> {
    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        // Ids are given out by `add` alone.
        &self.0[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Value<'a> {
        &mut self.0[id.0 as usize]
    }

    pub(super) fn add(&mut self, value: Value<'a>) -> Step<Id> {
        match u32::try_from(self.0.len()) {
            Ok(id) if self.0.len() < MAX_VALUES => {
                self.0.push(value);
                Ok(Id(id))
            }
            _ => Err(format!("more than {MAX_VALUES} values")),
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Step<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Ok(items),
            other => Err(format!("expected a tuple, got {}", other.kind())),
        }
    }

    pub(super) fn text(&self, id: Id) -> Step<&'a str> {
        match self.get(id) {
            Value::Text(text) => Ok(text),
            other => Err(format!("expected a text, got {}", other.kind())),
        }
    }

    pub(super) fn size(&self, id: Id) -> Step<usize> {
        match self.get(id) {
            Value::Int(n) => {
                usize::try_from(*n).map_err(|_| format!("expected a size that exists, got {n}"))
            }
            other => Err(format!("expected a size, got {}", other.kind())),
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Step<Vec<usize>> {
        let items = self.tuple(id)?;
        if items.len() > MAX_RANK {
            return Err(format!(
                "expected a tensor of at most {MAX_RANK} dimensions, got {}",
                items.len()
            ));
        }
        items.iter().map(|id| self.size(*id)).collect()
    }
}

impl View<'_> {
    /// Whether all of the tensor lies within its storage, which has at least as many elements: a tensor that repeats elements
    /// could be of any size.
    pub(super) fn check(&self) -> Step<()> {
        let place = || format!("tensor of shape {:?}", self.shape);
        let (rank, strides) = (self.shape.len(), self.stride.len());
        if rank != strides {
            return Err(format!("{} with {strides} strides", place()));
        }
        let count = elements(&self.shape).ok_or_else(|| format!("{} is too large", place()))?;
        let stored = self.bytes / self.dtype.size_in_bytes();
        if self.offset > stored || count > stored {
            return Err(format!(
                "{} from element {} on: its storage has {stored} elements",
                place(),
                self.offset
            ));
        }
        match self.last() {
            _ if count == 0 => Ok(()),
            Some(last) if last < stored => Ok(()),
            _ => Err(format!(
                "{} with strides {:?} from element {} on ends past its storage of {stored} elements",
                place(),
                self.stride,
                self.offset
            )),
        }
    }

    /// The place of the last element in the storage, if it can be told.
    pub(super) fn last(&self) -> Option<usize> {
        let mut last = self.offset;
        for (size, stride) in self.shape.iter().zip(&self.stride) {
            last = last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)?;
        }
        Some(last)
    }
}
