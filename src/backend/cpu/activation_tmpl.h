/* The activations over the vector layer included before. They follow their definitions to about 1e-7 of their argument's size,
 * with no branch; a NaN stays a NaN. */

static const float LOG2_E = 1.44269504f;

TFI_INLINE vec absolute(vec x)
{
    return vec_max(-x, x);
}

TFI_INLINE vec positive_part(vec x)
{
    return vec_max(vec_set(0), x);
}

/* e^x - 1 for x <= 0 without cancellation near 0: with x = (n + f) ln 2 it is 2^n (2^f - 1) + (2^n - 1). */
TFI_INLINE vec expm1_vec(vec x)
{
    x = vec_max(vec_set(EXP2_LOW), x * vec_set(LOG2_E));
    const vec n = vec_round(x), f = x - n, scale = vec_scale2(vec_set(1), n);
    vec p = vec_set(1.5252734e-5f);
    p = vec_fma(p, f, vec_set(1.5403530e-4f));
    p = vec_fma(p, f, vec_set(1.3333558e-3f));
    p = vec_fma(p, f, vec_set(9.6181291e-3f));
    p = vec_fma(p, f, vec_set(5.5504109e-2f));
    p = vec_fma(p, f, vec_set(2.4022651e-1f));
    p = vec_fma(p, f, vec_set(6.9314718e-1f));
    return vec_fma(p * f, scale, scale - vec_set(1));
}

/* tanh x = (1 - e^-2x) / (1 + e^-2x) for x >= 0 */
TFI_INLINE vec tanh_positive(vec x)
{
    const vec m = expm1_vec(x * vec_set(-2));
    return -m / (vec_set(2) + m);
}

TFI_INLINE vec sigmoid(vec x)
{
    const vec above = exp2_vec(-positive_part(-x) * vec_set(LOG2_E)); /* e^min(x, 0) */
    return above / (vec_set(1) + exp2_vec(-absolute(x) * vec_set(LOG2_E)));
}

/* x Phi(x) = max(x, 0) - t Phi(-t) with t = |x|. Phi(-t) = e^(-t^2/2) q(t), and q, half the scaled complementary error function
 * of t / sqrt 2, is smooth: a polynomial in 1 / (1 + 0.3 t) fitted for the least relative error on [0, 14], 1.5e-7. */
TFI_INLINE vec gelu(vec x)
{
    const vec t = absolute(x), u = vec_set(1) / vec_fma(t, vec_set(0.3f), vec_set(1));
    vec q = vec_set(0.0356750414f);
    q = vec_fma(q, u, vec_set(-0.157204136f));
    q = vec_fma(q, u, vec_set(0.206355199f));
    q = vec_fma(q, u, vec_set(-0.0536850803f));
    q = vec_fma(q, u, vec_set(0.128562316f));
    q = vec_fma(q, u, vec_set(0.0999132991f));
    q = vec_fma(q, u, vec_set(0.120753981f));
    q = vec_fma(q, u, vec_set(0.119629294f));
    const vec tail = exp2_vec(t * t * vec_set(-0.5f * LOG2_E)) * u * t;
    return positive_part(x) - tail * q;
}

TFI_INLINE vec activate(vec x, tfi_activation activation)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return positive_part(x);
    case TFI_ACT_GELU:
        return gelu(x);
    case TFI_ACT_GELU_TANH: /* (1 + tanh z) / 2 is the sigmoid of 2z */
        return x * sigmoid(x * vec_fma(x * x, vec_set(0.0713548163f), vec_set(1.59576912f)));
    case TFI_ACT_SILU:
        return x * sigmoid(x);
    case TFI_ACT_TANH:
        return tanh_positive(positive_part(x)) - tanh_positive(positive_part(-x));
    case TFI_ACT_SIGMOID:
        return sigmoid(x);
    case TFI_ACT_NONE:
    case TFI_ACT_COUNT:
        break;
    }
    return x;
}
