/* An encoding in the caller's arrays: its rows as they lie, or brought to one width. */
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

/* Where rows go: row r begins at r * width, or where it begins in the encoding if they are packed. */
typedef struct layout {
    const tf_encoding_data *data;
    int64_t width;
    int is_packed, is_left;
} layout;

static int64_t row_tokens(const tf_encoding_data *d, int64_t r)
{
    return d->row_start[r + 1] - d->row_start[r];
}

static tf_status lay_out(const tf_encoding_data *d, const tf_encoding_arrays *a, layout *l)
{
    *l = (layout){.data = d, .width = a->width, .is_packed = a->width == TF_UNSET, .is_left = a->pad_side == TF_SIDE_LEFT};
    if (l->is_packed) return TF_STATUS_OK;
    for (int64_t r = 0; r < d->rows; r++) {
        if (row_tokens(d, r) <= l->width) continue;
        if (a->width != 0)
            return tfi_fail(TF_STATUS_INVALID, "row %lld has %lld tokens, tf_encoding_arrays.width is %lld", (long long)r,
                            (long long)row_tokens(d, r), (long long)a->width);
        l->width = row_tokens(d, r);
    }
    if (d->rows > 0 && l->width > INT64_MAX / 8 / d->rows)
        return tfi_fail(TF_STATUS_INVALID, "tf_encoding_arrays.width is %lld", (long long)a->width);
    return TF_STATUS_OK;
}

static void write_row_starts(const layout *l, int64_t *to)
{
    if (!to) return;
    for (int64_t r = 0; r <= l->data->rows; r++) to[r] = l->is_packed ? l->data->row_start[r] : r * l->width;
}

static void fill(int32_t *to, int32_t value, int64_t count)
{
    for (int64_t i = 0; i < count; i++) to[i] = value;
}

/* One array of 32-bit numbers; without `from` tokens are 1. */
static void write_numbers(const layout *l, int32_t *to, const int32_t *from, int32_t padding)
{
    const tf_encoding_data *d = l->data;

    for (int64_t r = 0; to && r < d->rows; r++) {
        const int64_t n = row_tokens(d, r), pads = l->is_packed ? 0 : l->width - n;
        fill(to, padding, l->is_left ? pads : 0);
        to += l->is_left ? pads : 0;
        if (from) memcpy(to, from + d->row_start[r], (size_t)n * sizeof *to);
        else fill(to, 1, n);
        fill(to + n, padding, l->is_left ? 0 : pads);
        to += n + (l->is_left ? 0 : pads);
    }
}

/* One array of places in the text. */
static void write_places(const layout *l, int64_t *to, const int64_t *from)
{
    const tf_encoding_data *d = l->data;

    for (int64_t r = 0; to && r < d->rows; r++) {
        const int64_t n = row_tokens(d, r), pads = l->is_packed ? 0 : l->width - n;
        memset(to, 0, (size_t)(n + pads) * sizeof *to);
        memcpy(to + (l->is_left ? pads : 0), from + d->row_start[r], (size_t)n * sizeof *to);
        to += n + pads;
    }
}

tf_status tf_encoding_write(const tf_encoding *e, const tf_encoding_arrays *arrays, int64_t *rows, int64_t *tokens)
{
    tf_encoding_arrays a;
    tf_encoding_data d;
    layout l;
    tf_status status;

    if (!arrays || !rows || !tokens) return tfi_fail(TF_STATUS_INVALID, "arrays, rows and tokens must not be NULL");
    tf_encoding_arrays_init(&a);
    tf_encoding_data_init(&d);
    if ((status = tfi_options_read(&a, sizeof a, arrays, "tf_encoding_arrays")) < 0) return status;
    if ((status = tfi_option_int(&a.pad_id, 0, 0, INT32_MAX, "tf_encoding_arrays.pad_id")) < 0) return status;
    if ((status = tfi_option_int(&a.pad_side, TF_SIDE_RIGHT, TF_SIDE_RIGHT, TF_SIDE_LEFT, "tf_encoding_arrays.pad_side")) < 0)
        return status;
    if (a.row_capacity < 0 || a.token_capacity < 0 || (a.width < 0 && a.width != TF_UNSET))
        return tfi_fail(TF_STATUS_INVALID, "tf_encoding_arrays has a negative number");
    if ((status = tf_encoding_get(e, &d)) < 0 || (status = lay_out(&d, &a, &l)) < 0) return status;
    *rows = d.rows;
    *tokens = l.is_packed ? d.tokens : d.rows * l.width;
    if (*rows > a.row_capacity || *tokens > a.token_capacity)
        return tfi_fail(TF_STATUS_TOO_SMALL, "%lld rows and %lld tokens, room for %lld and %lld", (long long)*rows,
                        (long long)*tokens, (long long)a.row_capacity, (long long)a.token_capacity);
    write_row_starts(&l, a.row_start);
    if (a.row_text && d.rows > 0) memcpy(a.row_text, d.row_text, (size_t)d.rows * sizeof *a.row_text);
    write_numbers(&l, a.mask, NULL, 0);
    write_numbers(&l, a.ids, d.ids, a.pad_id);
    write_numbers(&l, a.type_ids, d.type_ids, 0);
    write_numbers(&l, a.sequence, d.sequence, -1);
    write_numbers(&l, a.word, d.word, -1);
    write_places(&l, a.byte_begin, d.byte_begin);
    write_places(&l, a.byte_end, d.byte_end);
    write_places(&l, a.char_begin, d.char_begin);
    write_places(&l, a.char_end, d.char_end);
    return TF_STATUS_OK;
}
