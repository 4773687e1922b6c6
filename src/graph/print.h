/* A graph as text for people: one line an op, or Graphviz source. */
#ifndef TFI_GRAPH_PRINT_H
#define TFI_GRAPH_PRINT_H

#include "backend/ops.h"

/* Write at most `capacity` bytes (no NUL) and return the full size. */
int64_t tfi_graph_text(const tfi_graph *g, char *text, int64_t capacity);
int64_t tfi_graph_dot(const tfi_graph *g, char *text, int64_t capacity);

#endif
