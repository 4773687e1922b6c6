/* The static memory plan of a graph's activations: every value gets an offset in one block, values whose lives do not meet
 * share bytes. Used by every backend, so that tf_model_plan and the programs agree. */
#ifndef TFI_BACKEND_PLAN_H
#define TFI_BACKEND_PLAN_H

#include "backend/ops.h"
#include "base/memory.h"

enum { TFI_PLAN_ALIGN = 64 };

/* offsets [value_count] in bytes, multiples of TFI_PLAN_ALIGN; *bytes the size of the block. Each value has room for
 * limits[rows] rows; `slack` bytes lie unused behind each (backends that read whole vectors past the end). A value with `keep` shares
 * with nothing. NOMEM. */
tf_status tfi_plan_values(const tfi_graph *g, const int64_t limits[TFI_ROWS_COUNT], int64_t slack, tfi_memory *memory,
                          int64_t *offsets, int64_t *bytes);

#endif
