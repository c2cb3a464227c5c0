//! mnemic
fn main() {}
