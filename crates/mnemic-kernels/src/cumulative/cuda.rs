//! The CUDA path: one launch in each direction, two for the gradient of the product.

use candle_core::{DType, Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, Rows, empty, empty_like, suffix};

fn launch<'a>(kernel: &str, x: &Tensor) -> Result<(Launch<'a>, Rows)> {
    let rows = Rows::of(x);
    let rows = Rows { lanes: rows.lanes.min(512), ..rows };
    Ok((rows.grid(Launch::new("scan", format!("{kernel}_{}", suffix(x.dtype())?))), rows))
}

fn sizes(launch: Launch<'_>, rows: Rows) -> Result<Launch<'_>> {
    launch.int(rows.count)?.int(rows.width)?.int(rows.lanes)
}

pub(super) struct CumsumOp {
    pub(super) exclusive: bool,
}

impl CumsumOp {
    fn scan(&self, x: &Tensor, back: bool) -> Result<Tensor> {
        let y = empty_like(x)?;
        let (launch, rows) = launch("scan_sum", x)?;
        let launch = sizes(launch.tensor(x).tensor(&y), rows)?;
        launch.flag(self.exclusive).flag(back).run(x.device())?;
        Ok(y)
    }
}

impl DeviceOp for CumsumOp {
    const NAME: &'static str = "mnemic-cumsum";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        Ok((vec![self.scan(&inputs[0], false)?], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![pass.grads[0].as_ref().map(|dy| self.scan(dy, true)).transpose()?])
    }
}

pub(super) struct CumprodOp {
    pub(super) exclusive: bool,
}

impl DeviceOp for CumprodOp {
    const NAME: &'static str = "mnemic-cumprod";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let x = &inputs[0];
        let y = empty_like(x)?;
        let (launch, rows) = launch("scan_product", x)?;
        let launch = sizes(launch.tensor(x).tensor(&y), rows)?;
        launch.flag(self.exclusive).run(x.device())?;
        Ok((vec![y], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let (x, Some(dy)) = (&pass.inputs[0], &pass.grads[0]) else { return Ok(vec![None]) };
        let (dx, product) = (empty_like(x)?, empty(x.shape(), DType::F32, x.device())?);
        let (first, rows) = launch("scan_product_wide", x)?;
        sizes(first.tensor(x).tensor(&product), rows)?.run(x.device())?;
        let (second, rows) = launch("scan_product_gradient", x)?;
        let second = second.tensor(x).tensor(dy).tensor(&product).tensor(&dx);
        sizes(second, rows)?.flag(self.exclusive).run(x.device())?;
        Ok(vec![Some(dx)])
    }
}
