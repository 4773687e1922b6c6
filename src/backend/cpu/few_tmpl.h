/* x W^T for a few rows of x and one packed block of W, over a vector layer and what its elements are (operand_*.h).
 *
 * Shapes    x [rows, K], rows in [1, TFI_FEW_ROWS]; block [units][TFI_BLOCK] as linear.h says; sums [rows, TFI_BLOCK].
 * Work      a piece of the block that fits the first-level cache goes past groups of up to TILE_ROWS rows, whose sums stay in
 *           registers; while later groups read it there, the next piece is asked for. So weights stream from memory once, and
 *           the stream does not stop while there is arithmetic to do.
 * Floor     the weights' bytes at the memory's rate: up to 16 rows the arithmetic takes less.
 * Measured  see docs/benchmarks.md, 1x16; oneDNN's kernel for such shapes goes over the block once for each of its row blocks
 *           and reached 31 to 35 of 41 GB/s. */

enum { FEW_UNITS = 48, FEW_PANEL = TILE_VECS * VEC, LINE_FLOATS = 16 };

typedef struct few_piece {
    const char *x; /* of the group's first row, at the piece's first unit */
    int64_t row_bytes;
    const float *block;
    int64_t units;
    float *sums;        /* of the group's first row */
    const float *ahead; /* lines to ask for: lines_a_unit with each unit */
    int64_t lines_a_unit;
} few_piece;

/* The 32 bits of x that unit u multiplies: one fp32 value or two bf16 ones. */
TFI_INLINE vec few_element(const char *x, int64_t u)
{
    float bits;
    memcpy(&bits, x + 4 * u, sizeof bits);
    return vec_set(bits);
}

TFI_INLINE void few_group(const few_piece *p, int add, const int rows)
{
    for (int64_t c = 0; c < TFI_BLOCK; c += FEW_PANEL) {
        vec sum[TILE_ROWS][TILE_VECS];

        TFI_UNROLL
        for (int r = 0; r < rows; r++) {
            TFI_UNROLL
            for (int v = 0; v < TILE_VECS; v++) sum[r][v] = add ? vec_load(p->sums + r * TFI_BLOCK + c + v * VEC) : vec_set(0);
        }
        for (int64_t u = 0; u < p->units; u++) {
            vec w[TILE_VECS];
            TFI_UNROLL
            for (int v = 0; v < TILE_VECS; v++) w[v] = vec_load(p->block + u * TFI_BLOCK + c + v * VEC);
            for (int64_t i = 0; i < p->lines_a_unit; i++)
                __builtin_prefetch(p->ahead + (u * p->lines_a_unit + i) * LINE_FLOATS);
            TFI_UNROLL
            for (int r = 0; r < rows; r++) {
                const vec element = few_element(p->x + r * p->row_bytes, u);
                TFI_UNROLL
                for (int v = 0; v < TILE_VECS; v++) sum[r][v] = operand_fma(element, w[v], sum[r][v]);
            }
        }
        TFI_UNROLL
        for (int r = 0; r < rows; r++) {
            TFI_UNROLL
            for (int v = 0; v < TILE_VECS; v++) vec_store(p->sums + r * TFI_BLOCK + c + v * VEC, sum[r][v]);
        }
    }
}

static void few_group_of(const few_piece *p, int add, int64_t rows)
{
    switch (rows) {
    case 1:
        few_group(p, add, 1);
        break;
    case 2:
        few_group(p, add, 2);
        break;
    case 3:
        few_group(p, add, 3);
        break;
    case 4:
        few_group(p, add, 4);
        break;
    case 5:
        few_group(p, add, 5);
        break;
    default:
        few_group(p, add, TILE_ROWS);
        break;
    }
}

/* The inputs from `from` on that fill no whole unit, from copies followed by zeros. */
TFI_INLINE void few_rest(const void *x, int64_t rows, int64_t K, int64_t from, const float *block, float *sums, int add)
{
    const int64_t size = 4 / PER_ELEMENT;
    uint32_t rest[TFI_FEW_ROWS] = {0};

    for (int64_t r = 0; r < rows; r++) memcpy(&rest[r], (const char *)x + (r * K + from) * size, (size_t)((K - from) * size));
    for (int64_t r = 0; r < rows; r++) {
        const few_piece p = {.x = (const char *)&rest[r],
                             .block = block + from / PER_ELEMENT * TFI_BLOCK,
                             .units = 1,
                             .sums = sums + r * TFI_BLOCK};
        few_group(&p, add, 1);
    }
}

/* sums = x W^T over the inputs [from, to); `then` is what is read after them. */
static void few_part(const void *x, int64_t rows, int64_t K, int64_t from, int64_t to, const float *block, const float *then,
                     float *sums)
{
    const int64_t units = to / PER_ELEMENT, first = from / PER_ELEMENT, row_bytes = K * (4 / PER_ELEMENT);
    const int64_t groups = (rows + TILE_ROWS - 1) / TILE_ROWS, lines_a_unit = (TFI_BLOCK / LINE_FLOATS + groups - 1) / groups;

    for (int64_t u = first; u < units; u += FEW_UNITS) {
        const int64_t n = units - u < FEW_UNITS ? units - u : FEW_UNITS;
        const float *next = u + n < units ? block + (u + n) * TFI_BLOCK : then;
        for (int64_t g = 0, row = 0; g < groups; g++) {
            const int64_t some = rows * (g + 1) / groups - row;
            const few_piece p = {.x = (const char *)x + row * row_bytes + 4 * u,
                                 .row_bytes = row_bytes,
                                 .block = block + u * TFI_BLOCK,
                                 .units = n,
                                 .sums = sums + row * TFI_BLOCK,
                                 .ahead = next + g * lines_a_unit * n * LINE_FLOATS,
                                 .lines_a_unit = lines_a_unit};
            few_group_of(&p, u > first, some);
            row += some;
        }
    }
    if (units * PER_ELEMENT < to) few_rest(x, rows, K, units * PER_ELEMENT, block, sums, units > first);
}

/* Inputs summed up before they are added to the rest, as oneDNN 2.6's kernels do it: a row shall give the same bits whether it
 * is one of few or of many. */
TFI_INLINE int64_t few_span(int64_t K)
{
    return K > 1024 ? 1024 : 512;
}

static void few(const void *x, int64_t rows, int64_t K, const uint32_t *packed, const uint32_t *following, float *sums)
{
    const float *block = (const float *)(const void *)packed, *then = (const float *)(const void *)(following ? following : packed);
    const int64_t span = few_span(K);
    _Alignas(64) float part[TFI_FEW_ROWS * TFI_BLOCK];

    few_part(x, rows, K, 0, K < span ? K : span, block, K > span ? block + span / PER_ELEMENT * TFI_BLOCK : then, sums);
    for (int64_t from = span; from < K; from += span) {
        const int64_t to = K - from < span ? K : from + span;
        few_part(x, rows, K, from, to, block, to < K ? block + to / PER_ELEMENT * TFI_BLOCK : then, part);
        for (int64_t i = 0; i < rows * TFI_BLOCK; i += VEC) vec_store(sums + i, vec_load(sums + i) + vec_load(part + i));
    }
}
