//! Checks a gradient against finite differences, and shows what a failing comparison says.

use candle_core::DType;
use mnemic_testing::{assert_close, check_gradients, waves};

fn main() {
    let x = waves(&[2, 3], 0., 1., DType::F64);
    check_gradients(&[("x", x.clone())], 1e-8, |x| x[0].tanh()?.sum_all());
    println!("the gradient of tanh agrees with finite differences");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_close("x and y", &x, &waves(&[2, 3], 0.001, 1., DType::F64), 0., 1e-6);
    }));
    println!("a comparison that fails: {}", outcome.is_err());
}
