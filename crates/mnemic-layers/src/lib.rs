#![doc = include_str!("../README.md")]

mod action_stack;
mod attention;
mod cache;
mod context;
mod dnc;
mod embedding;
mod episodic;
mod heads;
mod hierarchical_attention;
mod hierarchical_memory;
pub mod init;
mod linear;
pub mod losses;
mod masks;
mod multi_head;
mod neural_stack;
mod norm;
mod ntm;
mod pointer;
mod position;
mod recurrent;
mod relative;
mod rotary;
mod store;
mod structured_ntm;
mod transformer;

pub use action_stack::{ActionStackConfig, ActionStackState, ActionStacks};
pub use attention::dot_attention;
pub use cache::KvCache;
pub use context::{Context, Trace, Watched};
pub use dnc::{DncMemory, DncMemoryConfig, DncState};
pub use embedding::Embedding;
pub use episodic::{EpisodicAttention, EpisodicKind, PreparedFacts};
pub use heads::{AttentionOptions, Heads, split_heads};
pub use hierarchical_attention::{
    HierarchicalAttention, HierarchicalAttentionConfig, HierarchicalState, Readout,
};
pub use hierarchical_memory::{
    Access, Evaluations, HierarchicalMemory, HierarchicalMemoryConfig, Tree,
};
pub use linear::{Linear, linear};
pub use masks::{gather_steps, last_states, length_mask};
pub use mnemic_kernels::activation::{relu, sigmoid, tanh};
pub use mnemic_kernels::arithmetic::{add, scale};
pub use mnemic_kernels::attention::{Bias, Mask, Relative, alibi_slopes};
pub use mnemic_kernels::concat::{concat, split};
pub use mnemic_kernels::content::{Addressed, Content, content_attention};
pub use mnemic_kernels::entity::{EntityScan, EntityWeights, entity_scan};
pub use mnemic_kernels::memory::action_stack::Structure as ActionStructure;
pub use mnemic_kernels::memory::stack::Structure;
pub use mnemic_kernels::memory::{read, read_tape, select, write_tape};
pub use mnemic_kernels::policy_gradient::policy_gradient;
pub use mnemic_kernels::rng::Philox;
pub use mnemic_kernels::softmax::{log_softmax, masked_softmax, softmax};
pub use mnemic_kernels::time_steps::{stack, unbind};
pub use mnemic_kernels::{awake, backward, only_fused};
pub use multi_head::{MultiHeadAttention, MultiHeadConfig};
pub use neural_stack::{NeuralStack, NeuralStackState};
pub use norm::{LayerNorm, LayerNormConfig, RmsNorm};
pub use ntm::{NtmMemory, NtmMemoryConfig, NtmState};
pub use pointer::Pointer;
pub use position::{PositionEncoding, position_encoding};
pub use recurrent::{
    AttentionGru, GateInit, GatedGru, Gru, Lstm, Nonlinearity, Recurrent, RecurrentConfig,
    RecurrentInit, RecurrentLstm, Reset, Rnn,
};
pub use relative::{RelativeBuckets, relative_buckets};
pub use rotary::{Rotary, RotaryLayout, RotaryTables};
pub use store::{LoadMismatch, ParamStore};
pub use structured_ntm::{
    MemoryStructure, StructuredMemory, StructuredMemoryConfig, StructuredState,
};
pub use transformer::{
    Activation, SinusoidLayout, TransformerConfig, TransformerDecoder, TransformerDecoderLayer,
    TransformerEncoder, TransformerEncoderLayer, sinusoidal_positions,
};
