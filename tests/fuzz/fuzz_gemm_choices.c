/* Any bytes as a file of choices: as they are, and as the lines between a right beginning and a right checksum. What is taken
 * can be found again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/buckets.h"
#include "backend/cuda/gemm_choices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char head[] = "tfinfer gemm choices 1\ndevice D\ncapability 90 multiprocessors 132 cublasLt 130002\n";
static const tfi_gemm_origin origin = {"D", 90, 132, 130002};
static tfi_gemm_choices choices;

static void parse(const char *text, size_t size)
{
    memset(&choices, 0, sizeof choices);
    const char *why = tfi_gemm_choices_parse(&choices, &origin, text, size);
    for (int i = 0; i < TFI_GEMM_CLASSES; i++) {
        const tfi_gemm_choice *e = &choices.at[i];
        if (e->state == TFI_GEMM_FREE) continue;
        if (why || e->state != TFI_GEMM_READ || tfi_bucket(e->shape.M) != e->shape.M || e->shape.N < 1 || e->shape.K < 1 ||
            tfi_gemm_choices_find(&choices, &e->shape) != e)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t summed = sizeof head - 1 + size, whole = summed + 21;
    uint64_t sum = 14695981039346656037u;
    char *text = malloc(whole + 1), *exact;

    if (!text) return 0;
    memcpy(text, head, sizeof head - 1);
    if (size) memcpy(text + sizeof head - 1, data, size);
    for (size_t i = 0; i < summed; i++) sum = (sum ^ (unsigned char)text[i]) * 1099511628211u;
    snprintf(text + summed, 22, "sum %016llx\n", (unsigned long long)sum);
    if ((exact = malloc(whole))) { /* so that sanitizers see an overrun */
        memcpy(exact, text, whole);
        parse(exact, whole);
    }
    parse((const char *)data, size);
    free(exact);
    free(text);
    return 0;
}
