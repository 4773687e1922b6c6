/* The table of a tier from an inline finish(tile, activation, dtype of y), pack(), round_floats() and few(), which is fp32's;
 * FEW_BF16 names the other. Included by the tiers alone. */
#define FINISH(name, activation)                                                                                               \
    static void name##_f32(const tfi_linear_tile *t)                                                                           \
    {                                                                                                                          \
        finish(t, activation, TFI_F32);                                                                                        \
    }                                                                                                                          \
    static void name##_bf16(const tfi_linear_tile *t)                                                                          \
    {                                                                                                                          \
        finish(t, activation, TFI_BF16);                                                                                       \
    }
FINISH(finish_none, TFI_ACT_NONE)
FINISH(finish_relu, TFI_ACT_RELU)
FINISH(finish_gelu, TFI_ACT_GELU)
FINISH(finish_gelu_tanh, TFI_ACT_GELU_TANH)
FINISH(finish_silu, TFI_ACT_SILU)
FINISH(finish_tanh, TFI_ACT_TANH)
FINISH(finish_sigmoid, TFI_ACT_SIGMOID)

#define TIER                                                                                                                   \
    {                                                                                                                          \
        .finish = {{finish_none_f32, finish_none_bf16},      {finish_relu_f32, finish_relu_bf16},                              \
                   {finish_gelu_f32, finish_gelu_bf16},      {finish_gelu_tanh_f32, finish_gelu_tanh_bf16},                    \
                   {finish_silu_f32, finish_silu_bf16},      {finish_tanh_f32, finish_tanh_bf16},                              \
                   {finish_sigmoid_f32, finish_sigmoid_bf16}},                                                                 \
        .pack = pack, .round = round_floats, .few = {                                                                          \
            few,                                                                                                               \
            FEW_BF16                                                                                                           \
        }                                                                                                                      \
    }
