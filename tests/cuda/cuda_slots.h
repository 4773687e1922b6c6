/* What the tests of draws share: slots on both sides, with histories, settings and beams; logits. */
#ifndef CUDA_SLOTS_H
#define CUDA_SLOTS_H

#include "cuda_check.h"

enum { SLOTS = 64, TOKENS = 64 };

/* Slots on both sides. */
typedef struct world {
    tfi_slot host[SLOTS], *device;
    tfi_slot mirror[SLOTS]; /* the device's records, on the host */
    int32_t count;
} world;

/* True as many times in a hundred. */
int chance(int percent);

int32_t any_vocab(void);
/* Ids below V, some of which come again. */
int32_t *any_ids(int32_t count, int32_t V);
/* Forced to an older path every third time. */
int any_capability(void);

/* Greedy, and nothing else asked for. */
tfi_sampling plain_sampling(int32_t V);
/* The same on the device. */
const tfi_sampling *device_sampling(const tfi_sampling *host);

/* As a request begins, and the same on the device. */
tfi_beams *new_beams(int32_t count);
tfi_beams *device_beams(const tfi_beams *host, int32_t count);

/* A slot whose history has `count` tokens of room for `room`. */
tfi_slot *add_slot(world *w, const tfi_sampling *s, const tfi_sampling *device, int32_t count, int32_t room);
void send_slots(world *w);
/* Counts, scores and histories are the same on both sides. */
void compare_slots(const world *w);
int near(float a, float b);

/* Logits as models make them; sometimes with equal ones, or with what must not be there. */
float *any_logits(int64_t rows, int64_t V);

tfi_cuda_live live_draws(int32_t draws, int32_t rows);

#endif
