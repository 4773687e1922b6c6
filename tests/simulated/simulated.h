/* What the two halves of the simulated device share. */
#ifndef SIMULATED_H
#define SIMULATED_H

#include <library_types.h>

#include "kernels/launch.h"

/* Call run() with a copy of the data: at once, or when the graph is launched that the stream is recorded into. */
void simulated_issue(cudaStream_t on, void (*run)(const void *), const void *data, size_t size);

/* Element i of type F32 or BF16. */
float simulated_element(const void *p, cudaDataType t, int64_t i);

#endif
