//! Functions of one value.

/// The function of this name.
pub(super) fn by_name(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => degrees,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => radians,
        "sgn" => sign,
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

fn degrees(value: f64) -> f64 {
    value * 180.0 / std::f64::consts::PI
}

fn radians(value: f64) -> f64 {
    value * std::f64::consts::PI / 180.0
}

fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// To the nearest multiple, halves up.
pub(super) fn round_to(value: f64, nearest: f64) -> f64 {
    // Its inverse loses less than it does itself.
    let inverse = 1.0 / nearest;
    (value * inverse + 0.5).floor() / inverse
}

/// Within bounds; NaN stays unless a bound is infinite on the side that decides, as in Go.
pub(super) fn clamp(value: f64, min: f64, max: f64) -> f64 {
    larger(min, smaller(max, value))
}

/// The larger one: +∞ where one is, else NaN where one is.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// The smaller one: −∞ where one is, else NaN where one is.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_and_clamping_are_as_in_prometheus() {
        assert_eq!([2.5, -2.5, 0.4].map(|v| round_to(v, 1.0)), [3.0, -2.0, 0.0]);
        assert_eq!(round_to(1.26, 0.1), 1.3);
        assert_eq!(clamp(5.0, 0.0, 3.0), 3.0);
        assert!(clamp(f64::NAN, 0.0, 3.0).is_nan() && clamp(1.0, f64::NAN, 3.0).is_nan());
        assert_eq!(sign(-0.0).to_bits(), (-0.0_f64).to_bits());
        assert_eq!((degrees(std::f64::consts::PI), radians(180.0)), (180.0, std::f64::consts::PI));
    }
}
