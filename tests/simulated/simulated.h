/* What the parts of the simulated device share, and what tests may ask it. */
#ifndef SIMULATED_H
#define SIMULATED_H

#include <library_types.h>

#include "kernels/launch.h"

/* Call run() with a copy of the data: at once, or when the graph is launched that the stream is recorded into. */
void simulated_issue(cudaStream_t on, void (*run)(const void *), const void *data, size_t size);

/* Element i of type F32 or BF16. */
float simulated_element(const void *p, cudaDataType t, int64_t i);

/* 90 for 9.0; of devices that are opened from now on. */
extern int simulated_capability;

/* Bytes of the device's memory that are free, as it says; and how often code was loaded onto it. */
extern size_t simulated_unused;
extern int simulated_loads;

/* Rows of a product as in tfi_few_args. */
void simulated_multiply(const tfi_few_args *a, int64_t rows);

/* All launches so far, and the chains among them. */
enum { SIMULATED_CHAINS = 16 };
typedef struct simulated_chain {
    const tfi_cuda_live *live;
    tfi_chain_args a; /* its links are these: */
    tfi_link links[TFI_CHAIN_LINKS];
} simulated_chain;
extern int simulated_launches, simulated_chain_count;
extern simulated_chain simulated_chains[SIMULATED_CHAINS]; /* the last, in turn */

#endif
