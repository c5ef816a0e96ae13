//! Products in full float32 where the process lets float32 products go through TensorFloat-32.
//!
//! On CUDA that is one switch of the whole process, and a model in half precision wants it on. Distances to codes and between features do
//! not bear its 10 bits of mantissa: differences of large numbers are lost in them. Such products are cut here into parts that TensorFloat-32
//! holds exactly, three multiplications in the place of one. Convolutions need none of this: they take the switch as an argument.

use crate::{ModelError, tf32};
use tch::{Device, Tensor};

/// 2¹³ + 1: what a float32 is multiplied with to cut 13 bits off its mantissa of 24 (Dekker 1971), which leaves TensorFloat-32's 11.
const SPLITTER: f64 = 8193.0;

/// `left` times `right`, `[n, k]` and `[k, m]`, to about 2⁻²¹ of the sum of the magnitudes, whatever TensorFloat-32 is allowed to do. On a
/// processor, and where it is not allowed, it is torch's own product.
pub(crate) fn full_float32_product(left: &Tensor, right: &Tensor) -> Result<Tensor, ModelError> {
    if left.device() == Device::Cpu || !tf32::is_allowed() {
        return Ok(left.f_matmul(right)?);
    }
    let (left, right) = split(left, right)?;
    Ok(left.f_matmul(&right)?)
}

/// Two matrices whose product is that of `left` and `right` and whose numbers TensorFloat-32 holds exactly or to 2⁻²² of the original:
/// `[n, 3k]` and `[3k, m]`.
///
/// With a high and a low part of each number, `left · right` is `high · high + low · high + high · low`; what is left out, `low · low`, is
/// smaller by 2²².
fn split(left: &Tensor, right: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
    let (left_high, left_low) = parts(left)?;
    let (right_high, right_low) = parts(right)?;
    Ok((
        Tensor::f_cat(&[&left_high, &left_low, &left_high], 1)?,
        Tensor::f_cat(&[&right_high, &right_high, &right_low], 0)?,
    ))
}

/// The upper 11 bits of each mantissa, and the rest.
fn parts(tensor: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
    let enlarged = tensor.f_mul_scalar(SPLITTER)?;
    let high = enlarged.f_sub(&enlarged.f_sub(tensor)?)?;
    let low = tensor.f_sub(&high)?;
    Ok((high, low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// What a tensor core reads of a float32: the nearest number of 11 bits, ties to even.
    fn as_tf32(tensor: &Tensor) -> Tensor {
        let bits = tensor.view_dtype(Kind::Int);
        let odd = bits.bitwise_right_shift_tensor_scalar(13).bitwise_and(1);
        let rounded: Tensor = bits + odd + 0xfff;
        rounded.bitwise_and(!0x1fff_i64).view_dtype(Kind::Float)
    }

    /// The product as a tensor core has it: operands rounded, products and sums not.
    fn product_in_tf32(left: &Tensor, right: &Tensor) -> Tensor {
        as_tf32(left).to_kind(Kind::Double).matmul(&as_tf32(right).to_kind(Kind::Double))
    }

    fn furthest(left: &Tensor, right: &Tensor) -> f64 {
        (left - right).abs().max().double_value(&[])
    }

    #[test]
    fn the_high_part_survives_tensor_float_32_and_both_parts_make_the_number() {
        tch::manual_seed(7);
        let numbers = Tensor::randn([64, 64], (Kind::Float, Device::Cpu)) * 1e3;
        let (high, low) = parts(&numbers).expect("computed");
        assert!(as_tf32(&high).equal(&high), "no bit is lost");
        assert!((&high + &low).equal(&numbers));
        assert!(!as_tf32(&numbers).equal(&numbers), "the imitation rounds");
    }

    #[test]
    fn a_product_through_tensor_float_32_is_as_good_as_float32_when_it_is_split() {
        tch::manual_seed(8);
        let left = Tensor::randn([100, 16], (Kind::Float, Device::Cpu));
        let right = Tensor::randn([16, 300], (Kind::Float, Device::Cpu));
        let exact = left.to_kind(Kind::Double).matmul(&right.to_kind(Kind::Double));
        let (split_left, split_right) = split(&left, &right).expect("computed");
        let split = furthest(&product_in_tf32(&split_left, &split_right), &exact);
        let plain = furthest(&product_in_tf32(&left, &right), &exact);
        assert!(split < 2e-5 && plain > 100.0 * split, "split {split:.1e}, plain {plain:.1e}");
    }

    #[test]
    fn on_a_processor_it_is_torchs_own_product() {
        tch::manual_seed(9);
        let left = Tensor::randn([10, 16], (Kind::Float, Device::Cpu));
        let right = Tensor::randn([16, 30], (Kind::Float, Device::Cpu));
        assert!(full_float32_product(&left, &right).expect("computed").equal(&left.matmul(&right)));
    }
}
