/* What every kernel launcher takes beside its op's arguments. A launcher is `tf_status tfi_cuda_OP(const tfi_cuda_launch *,
 * const tfi_OP_args *, tfi_op_types)` with C linkage: it checks nothing (the program did), picks a kernel by types, sizes and
 * capability, and launches it on the stream. The arguments are those of the op everywhere (backend/ops.h) with pointers in
 * device memory, but row counts are what the launch is made for: graphs are captured once for a bucket of rows and replayed for
 * any number up to it. How many rows live is read on the device; rows beyond write nothing. What differs from the host: the
 * store that kv.store names is a host record whose `blocks` is in device memory, in the layout of kernels/kv.cuh; kv.stride is
 * not read, the live strides are; weight forms are host records of device data; token lists of slots are in device memory. */
#ifndef TFI_KERNELS_LAUNCH_H
#define TFI_KERNELS_LAUNCH_H

#include <cuda_runtime_api.h>

#include "backend/host_ops.h"

typedef struct tfi_cuda_live { /* in device memory, written before each run */
    int32_t rows[TFI_ROWS_COUNT];
    int32_t draws, copies;
    int32_t longest;        /* rows of the longest sequence of the run */
    int32_t longest_stored; /* tokens in the store of the longest sequence, or source */
    int64_t table_stride, source_stride;
    tfi_choice *published;  /* [draws] pinned memory of the host, where the last of the ops that draw leaves a copy; NULL: nowhere */
    uint32_t tag;           /* of the run's first link; link i has tag + i. None of them is 0 or in the exchange already */
    uint32_t number;        /* of the run: more than that of the run before */
} tfi_cuda_live;

typedef struct tfi_cuda_launch {
    cudaStream_t stream;
    int capability; /* 90 for 9.0; an argument, so that tests can ask for older paths */
    int multiprocessors;
    const tfi_cuda_live *live; /* device */
    void *scratch;             /* device, of tfi_cuda_scratch() bytes */
    int waits;                 /* not put on the device before the one in front of it is over: that writes inputs */
} tfi_cuda_launch;

#ifdef __cplusplus
extern "C" {
#endif

/* One kernel of each .cu file, by which the driver finds the file's others; a list that is made when the library is loaded. */
typedef struct tfi_kernel_file {
    const void *kernel;
    struct tfi_kernel_file *next;
} tfi_kernel_file;
extern tfi_kernel_file *tfi_kernel_files;

/* A run's inputs to the device: those of the piece whose run has the lowest number above the last run's, which is read where the
 * inputs go. Pieces are pinned memory of the host, 16-byte aligned. The launch behind it waits. */
typedef struct tfi_inputs_args {
    const void *pieces[2];
    void *to;
    int64_t bytes, number_at; /* at most TFI_INPUTS_TAKEN; where a piece has the run's number */
} tfi_inputs_args;
enum { TFI_INPUTS_TAKEN = 16384 };
tf_status tfi_cuda_take_inputs(const tfi_cuda_launch *l, const tfi_inputs_args *a);

/* A few rows to pinned memory of the host: quicker there than by a copy. All are multiples of 16, bytes at most TFI_ROWS_GIVEN. */
typedef struct tfi_rows_args {
    const void *from;
    void *to;
    int64_t bytes;
} tfi_rows_args;
enum { TFI_ROWS_GIVEN = 65536 };
tf_status tfi_cuda_give_rows(const tfi_rows_args *a, cudaStream_t stream);

/* All that a run's caller wants, TFI_ROWS_GIVEN bytes at most, as the run's last launch; and when that is there, the run's number
 * to pinned memory as well: the host sees it 4 us before the device says that the run is over. */
enum { TFI_RESULTS = 8 };
typedef struct tfi_results_args {
    tfi_rows_args rows[TFI_RESULTS];
    int32_t count;
    uint32_t *number;
} tfi_results_args;
tf_status tfi_cuda_give_results(const tfi_cuda_launch *l, const tfi_results_args *a);

tf_status tfi_cuda_embed(const tfi_cuda_launch *l, const tfi_embed_args *a, tfi_op_types t);
/* EMBED and the norm of what it gives in one launch. a->y: fp32, or NULL, where nobody else reads that; norm->x is not read. */
int tfi_cuda_embed_norm_fits(int64_t E);
tf_status tfi_cuda_embed_norm(const tfi_cuda_launch *l, const tfi_embed_args *a, const tfi_norm_args *norm, tfi_op_types t);
/* from: [R] rows of x that are normalised, on the device, with no residual; NULL: row r is row r. */
tf_status tfi_cuda_norm(const tfi_cuda_launch *l, const tfi_norm_args *a, tfi_op_types t, tfi_rows rows, const int32_t *from);
tf_status tfi_cuda_glu(const tfi_cuda_launch *l, const tfi_glu_args *a, tfi_op_types t, tfi_rows rows);
/* No sequence has more than max_rows rows in a run, nor more than max_tokens tokens in the store. `append` (CACHE, max_rows 1; or
 * NULL) is a KV_APPEND of the same layer and x that has not been launched: it is done here, on the way. Then the store is read
 * ahead of the kernels before: of the run's kernels only KV_COPY, to blocks that the run appends to, and KV_APPEND write it. */
tf_status tfi_cuda_attention(const tfi_cuda_launch *l, const tfi_attention_args *a, tfi_op_types t, int64_t max_rows,
                             int64_t max_tokens, const tfi_kv_append_args *append);
/* attend: CACHE or SOURCE, whose tables kv.tables are. */
tf_status tfi_cuda_kv_append(const tfi_cuda_launch *l, const tfi_kv_append_args *a, tfi_op_types t, tfi_attend attend);
tf_status tfi_cuda_kv_copy(const tfi_cuda_launch *l, const tfi_kv_copy_args *a);

/* TFI_INPUT_KV_MOVES done: all in device memory, `moved` apart from `tables`; strides are the run's. What reads `moved` or `copies` waits,
 * and so does the launch behind this one. */
typedef struct tfi_kv_moves_args {
    const tfi_kv_move *moves;
    const int32_t *tables; /* [B, stride] */
    const int32_t *lens;   /* [B] TFI_INPUT_KV_LENS */
    const tfi_slot *slots;
    int32_t *moved;        /* [B, stride] */
    int32_t *copies;       /* [n, 2] entries that moves name */
    int64_t B;
} tfi_kv_moves_args;
tf_status tfi_cuda_kv_moves(const tfi_cuda_launch *l, const tfi_kv_moves_args *a);
tf_status tfi_cuda_gather(const tfi_cuda_launch *l, const tfi_gather_args *a, tfi_op_types t, tfi_rows rows);
tf_status tfi_cuda_pool(const tfi_cuda_launch *l, const tfi_pool_args *a, tfi_op_types t);
tf_status tfi_cuda_l2norm(const tfi_cuda_launch *l, const tfi_l2norm_args *a, tfi_op_types t, tfi_rows rows);
tf_status tfi_cuda_logprob(const tfi_cuda_launch *l, const tfi_logprob_args *a);
tf_status tfi_cuda_process(const tfi_cuda_launch *l, const tfi_process_args *a);
tf_status tfi_cuda_sample(const tfi_cuda_launch *l, const tfi_draw_args *a);
/* Leaves out requests whose record has `completes` (its value is the host's): the host steps those, over copied logits. */
tf_status tfi_cuda_beam_step(const tfi_cuda_launch *l, const tfi_draw_args *a);
tf_status tfi_cuda_stop(const tfi_cuda_launch *l, const tfi_draw_args *a);

/* GREEDY draws in one launch, in place of LOGITS_PROCESS, SAMPLE and STOP: every draw's record is tfi_cuda_is_greedy(), and x
 * (and logits) are the model's logits. */
tf_status tfi_cuda_greedy(const tfi_cuda_launch *l, const tfi_draw_args *a);
/* From keys of a product: draw i of row i, none of which wants log-probabilities. a's x, logits and V are not read. */
tf_status tfi_cuda_greedy_of_keys(const tfi_cuda_launch *l, const tfi_draw_args *a, const uint64_t *keys, int64_t parts);
/* No sampling, no beams, and of the processors none but min_length and min_new_tokens. On the host. */
int tfi_cuda_is_greedy(const tfi_sampling *s);

/* A matrix product of few rows with what stands before and after it in the graph, bound by the bytes of w:
 *   z = norm(norm.x[from] + norm.residual[from]), rounded to `type`, or x where norm.gain is NULL
 *   y = act(z w^T + bias) + residual, or gated: y = act(left half) * right half, of z w^T + bias. Sums are fp32. */
typedef struct tfi_few_args {
    tfi_norm_args norm; /* x, residual, gain, bias, norm, eps; y: where z is also written, or NULL */
    tfi_dtype norm_x, norm_residual;
    const int32_t *from;  /* [M] rows of norm.x and norm.residual, or of x, on the device; NULL: row m is row m */
    const void *x;        /* [M, K] of `type` */
    const void *w;        /* [N, K] of `type`, row-major; gated: gate rows first */
    const float *bias;    /* [N] or NULL */
    const void *residual; /* [M, N] of `out`, or NULL; not with gated */
    void *y;              /* [M, N], gated: [M, N / 2], of `out`; aliases none of them but residual */
    int64_t M, N, K;      /* M is at most TFI_FEW_ROWS */
    tfi_dtype type, out;
    tfi_activation activation;
    int gated;
    void *encode; /* makes maps for the copy engine (cuTensorMapEncodeTiled), or NULL */
    /* Not NULL: y are logits, which nobody but GREEDY reads, and draw m is of row m. Then y is its [M, tfi_cuda_few_parts()] keys. */
    const tfi_draw *draws;
    const tfi_slot *slots;
} tfi_few_args;
enum { TFI_FEW_ROWS = 64 };
/* Whether the kernel has a form for these sizes and types that is worth having at this capability; otherwise the matrix library
 * does it. */
int tfi_cuda_few_fits(const tfi_few_args *a, int capability);
tf_status tfi_cuda_few(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows);

/* Keys a row, the highest of which says what GREEDY draws; 0: the kernel cannot tell. */
int64_t tfi_cuda_few_parts(const tfi_cuda_launch *l, const tfi_few_args *a);

/* The ops of a decode step of one row one after the other in one launch that stays on the device from the first to the last: what
 * few.cu and decode attention do, without a launch between them, and with weights streaming all the time. A link is a product with
 * its neighbours, as in tfi_few_args, or attention with its KV_APPEND. Rows go from link to link through the exchange: words of 64
 * bits in device memory, the low half elements, the high half the tag of the link that wrote it. Who wants a word waits for its
 * tag. Words are wide, one fp32 element each, where y is F32 or a residual is added to it; else narrow, two elements of 16 bits.
 * A product with a norm reads wide words as x, all else narrow ones. A link whose live count is 0 does nothing. */
typedef enum tfi_link_kind { TFI_LINK_PRODUCT, TFI_LINK_ATTENTION } tfi_link_kind;

/* Where rows are: as words, or (words < 0) in memory, from before the chain or for after it. y may be both. */
typedef struct tfi_link_rows {
    void *memory;  /* [columns] of dtype, or NULL */
    int32_t words; /* number of the first word in the exchange; -1: none */
    int16_t link;  /* which wrote them */
    int16_t dtype; /* tfi_dtype */
} tfi_link_rows;

typedef struct tfi_link {
    /* x is in memory for the first link alone; residual, of y's dtype, has neither memory nor words where there is none. */
    tfi_link_rows x, residual, y;
    union {
        struct {
            const void *w;             /* [N, K] row-major, of the chain's type; gated: gate rows first */
            const float *bias;         /* [N] or NULL */
            const float *gain, *shift; /* [K]; gain NULL: no norm; shift NULL: none */
            int32_t N, K;
            float eps;
            uint8_t norm, activation, gated; /* tfi_norm, tfi_activation */
        } product;
        struct {
            const float *bias;   /* by distance, [H, 2 * max_distance + 1], or NULL */
            int32_t layer, H, D; /* x: [H * D] queries; a cache's: [column + 2 * H * D], new keys at `column` */
            int32_t column, max_distance;
            float scale;
            uint8_t source; /* keys and values of the source, else the sequence's own */
        } attention;
    } of;
    int32_t first;      /* block that has the first columns or heads, and one more where they do not come out even */
    uint8_t kind, rows; /* tfi_link_kind; tfi_rows */
} tfi_link;

enum { TFI_CHAIN_LINKS = 256 };

typedef struct tfi_chain_args {
    const tfi_link *links; /* host */
    int count;               /* at most TFI_CHAIN_LINKS */
    int number;              /* of the first link in the run, which may have several chains; the links of rows are such numbers */
    int64_t max_tokens;      /* in the store, of the sequence */
    tfi_dtype type;          /* BF16 or F16: weights, attention's x and y, the store */
    tfi_kv_view own, source; /* of any layer; store NULL: none */
    void *exchange;
    int32_t given; /* first of as many words as the first link's x has columns, for it alone; even */
} tfi_chain_args;
/* Whether links of these sizes and types may be in a chain. `first` is not read. */
int tfi_cuda_link_fits(const tfi_link *link, tfi_dtype type, int64_t max_tokens, int capability);
/* Whether the words that `writer` writes are such as `reader` reads as x. */
int tfi_cuda_links_meet(const tfi_link *writer, const tfi_link *reader);
/* What is dealt out to blocks: pairs of columns of y, or heads. */
int64_t tfi_cuda_link_shares(const tfi_link *link);
/* Words that a link's y takes. */
int64_t tfi_cuda_link_words(const tfi_link *link);
/* Whether one launch takes less time than the ops' own would. */
int tfi_cuda_chain_pays(const tfi_link *links, int count);
tf_status tfi_cuda_chain(const tfi_cuda_launch *l, const tfi_chain_args *a);

/* A matrix product of many rows whose end the matrix library lacks, or which it takes longer for, on wgmma: y = act(x w^T +
 * bias), x [M, K], w [N, K] and y of one 16-bit type, sums fp32. Maps of x, w and y for the copy engine are made by `encode`
 * (cuTensorMapEncodeTiled). */
typedef struct tfi_many_args {
    const void *x, *w;
    const float *bias; /* [N] or NULL */
    void *y;
    int64_t M, N, K;
    tfi_dtype type;
    tfi_activation activation;
    void *encode;
} tfi_many_args;
int tfi_cuda_many_fits(const tfi_many_args *a, int capability);
tf_status tfi_cuda_many(const tfi_cuda_launch *l, const tfi_many_args *a);

/* A matrix product of 65 to 512 rows, made to be over soon, on wgmma: y = act(x w^T + bias) + residual, x [M, K] and w [N, K]
 * of `type`, residual and y [M, N] of `out`; sums fp32; or y is the layer norm of that. `encode` as above. */
typedef struct tfi_mid_args {
    const void *x, *w;
    const float *bias;    /* [N] or NULL */
    const void *residual; /* or NULL */
    const float *gain;    /* [N] of the norm; NULL: none */
    const float *shift;   /* [N] or NULL */
    float eps;
    void *y; /* may be residual, without a norm */
    int64_t M, N, K;
    tfi_dtype type, out;
    tfi_activation activation;
    void *encode;
} tfi_mid_args;
int tfi_cuda_mid_fits(const tfi_mid_args *a, int capability);
tf_status tfi_cuda_mid(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows);

/* What follows a matrix product where the library's epilogue has not the right formula: y = act(y + bias) + residual over [M,
 * N]; sums are fp32 or y's dtype. */
typedef struct tfi_finish_args {
    const void *sums;
    const float *bias;    /* [N] or NULL */
    const void *residual; /* [M, N] in y's dtype, or NULL */
    void *y;
    int64_t M, N;
    tfi_activation activation;
} tfi_finish_args;
tf_status tfi_cuda_finish(const tfi_cuda_launch *l, const tfi_finish_args *a, tfi_op_types t, tfi_rows rows);

/* Of attention from the store by B sequences at most; 0 for the other kinds. */
int64_t tfi_cuda_attention_scratch(tfi_attend attend, int64_t B, int32_t H, int32_t D);

/* Of BEAM_STEP for as many draws. */
int64_t tfi_cuda_beam_step_scratch(int64_t draws);

/* Scratch bytes a launch of the op may use. */
int64_t tfi_cuda_scratch(const tfi_graph *g, const tfi_op *op, const int64_t *limits);

#ifdef __cplusplus
}
#endif
#endif
