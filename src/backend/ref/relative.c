/* Buckets of T5's relative position bias. Half of them hold one distance each, the others grow with the logarithm of the
 * distance up to max_distance. The arithmetic is float32, in the order of transformers' T5Attention._relative_position_bucket:
 * a distance at the edge between two buckets shall fall to the same side. */
#include <math.h>

#include "backend/host_ops.h"

int32_t tfi_relative_bucket(const tfi_relative *r, int32_t distance)
{
    const int32_t buckets = r->bidirectional ? r->buckets / 2 : r->buckets, exact = buckets / 2;
    const int32_t first = r->bidirectional && distance > 0 ? buckets : 0;
    const int32_t d = distance <= 0 ? -distance : r->bidirectional ? distance : 0;

    if (d < exact) return first + d;
    const float share = logf((float)d / (float)exact) / (float)log((double)r->max_distance / exact);
    const int32_t bucket = exact + (int32_t)(share * (float)(buckets - exact));
    return first + (bucket < buckets ? bucket : buckets - 1);
}
