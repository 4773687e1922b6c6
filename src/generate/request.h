/* A request: tf_generate from inside. Its running sequences (or beams) with their blocks, what was drawn, and what is handed out.
 * Nothing here computes: logits never leave the backend but for the host's own callback.
 * Called under the scheduler's lock unless a comment says otherwise. */
#ifndef TFI_GENERATE_REQUEST_H
#define TFI_GENERATE_REQUEST_H

#include <tfinfer/generate.h>

#include "generate/room.h"
#include "generate/settings.h"
#include "generate/stop_strings.h"

typedef enum tfi_request_state {
    TFI_REQUEST_SOURCE, /* its source has to be encoded */
    TFI_REQUEST_PROMPT, /* its prompt has to be read, in sequence 0: the others share its blocks until the first draw */
    TFI_REQUEST_DRAWN,  /* each running sequence has a drawn token to go on from */
    TFI_REQUEST_CALL,   /* its logits wait for the host's callback */
    TFI_REQUEST_CALLED, /* the callback's logits have to be drawn from */
    TFI_REQUEST_DONE
} tfi_request_state;

/* A running sequence, or beam. */
typedef struct tfi_sequence {
    int32_t slot;    /* of the store; -1 when it has ended */
    int32_t held;    /* the slot of one that has ended while a run still had it; -1: none */
    int32_t count;   /* tokens, prompt included */
    int32_t stored;  /* of them in the KV store */
    int32_t blocks;  /* held, in table */
    int32_t next;    /* of a beam: the block that the step planned behind appends to, held until the one before is over; -1: none */
    int32_t *tokens; /* [max_length] the slot's; of beams nobody's in particular, they change places */
    int32_t *table;  /* [max_blocks] */
} tfi_sequence;

/* A sequence as it is handed out. */
typedef struct tfi_generated_sequence {
    const int32_t *ids;    /* new tokens */
    float *logprobs;       /* [new tokens] or NULL */
    int32_t *beams;        /* [new tokens] which beam each was drawn from; NULL without beams */
    int64_t count, delivered;
    int32_t finish;        /* tf_finish */
    int32_t finish_delivered;
    float score;
    int32_t stop_index;    /* -1 */
    int64_t stop_begin;    /* -1 */
    tf_stream *stream;     /* NULL without a tokenizer */
} tfi_generated_sequence;

/* How a beam came to be at a step, for walking back. */
typedef struct tfi_beam_trace {
    int32_t parent, token;
    float logprob;
} tfi_beam_trace;

/* An entry of the finished list: what was beam `parent` before step `step`, then `token`. */
typedef struct tfi_finished_beam {
    int32_t step, parent, token; /* step -1: none */
    float score, logprob;
} tfi_finished_beam;

typedef struct tfi_job tfi_job;
typedef struct tfi_scheduler tfi_scheduler;

struct tf_generate {
    tfi_scheduler *scheduler;
    tf_session *owner;
    tf_generate *previous, *next; /* of the scheduler's list */
    tfi_room *room;
    tfi_arena arena;              /* arrays of fixed size */
    tfi_memory *memory;
    tfi_settings settings;
    tfi_request_state state;
    int in_use;                   /* runs and callbacks that are on it: it must not be freed, nor what its sequences hold */
    int calling;                  /* a thread is in the host's callback */
    int32_t ahead_rows;           /* while a step is planned: rows of the request in the step that is on its way, ... */
    int32_t ahead_draws;          /* ... and tokens that it draws for each sequence */
    int abandoned;                /* closed in the meantime; whoever uses it last frees it */
    int cancelled;
    tf_status status;             /* why it ended without a whole result */
    char error[512];
    int64_t started_ms;           /* -1: not yet */

    const tf_tokenizer *tokenizer; /* NULL: none */
    int32_t vocab, width;         /* of input embeddings */
    int32_t prompt, max_length, max_new, max_blocks;
    const float *embeddings;      /* [prompt, E] rows of ids -1, or NULL */
    int32_t step;                 /* tokens drawn so far, of each running sequence */
    int32_t running;              /* sequences that have not ended */
    tfi_sequence *sequences;      /* [settings.slots] */
    tfi_beams beams;
    int64_t promised;             /* blocks */
    int64_t held;                 /* of them, by the sequences; one that several share counts once */
    int32_t *copies;              /* [slots, 2] blocks to copy before the next step reads them */
    int32_t copy_count;
    int32_t *old_tables;          /* [slots, max_blocks] while beams change places */
    int32_t *parents;             /* [slots] */

    int32_t *source;              /* ids of the encoder, NULL with source_embeddings */
    float *source_embeddings;
    int32_t source_count, source_blocks;
    int32_t *source_table;        /* [source_blocks] */
    tfi_job *source_job;

    tfi_generated_sequence *results; /* [settings.results] */
    tfi_beam_trace *trace;        /* [max_new, slots] of beams */
    float *running_scores;        /* [slots] of beams */
    tfi_finished_beam *finished, *finished_before; /* [slots] */
    tfi_stops stops;              /* count 0: none */
    int32_t *stop_states, *stop_states_before; /* [slots, stops.count] */
    float *prompt_logprobs;       /* [prompt] or NULL */
    float *logits, *scores;       /* [max_new, slots, V] or NULL */
    float *callback_logits, *callback_raw; /* [slots, V] or NULL: constrained for the callback, raw for log-probabilities */
    int32_t *callback_ids;        /* [max_length] */
    char *text;                   /* of tf_generate_result, grown as needed */
    size_t text_room;
    char *piece;                  /* of tf_generate_next, grown as needed */
    size_t piece_room;
};

/* ---- while it runs ---- */

/* Hold blocks for tokens up to `stored`. */
void tfi_sequence_extend(tf_generate *g, tfi_sequence *q, int32_t stored);

static inline int tfi_request_has_beams(const tf_generate *g)
{
    return g->settings.sampling.num_beams > 1;
}

/* For a beam in a step that is planned behind its draw: the block that it appends to there. */
void tfi_request_take_next(tf_generate *g, tfi_sequence *q);

/* Draws of the next token: one for each running sequence, all from the one row before the first. Returns their number. */
int32_t tfi_request_rows(const tf_generate *g);

/* Can a step be planned for it before the draws of the one before are known? */
int tfi_request_can_go_ahead(const tf_generate *g);

/* What a run decided: the draws it was made with, in order, and their choices. Sequences that have ended since are passed over. */
void tfi_request_drawn(tf_generate *g, const tfi_draw *draws, const tfi_choice *choices);

/* No run is on it any more: give back what sequences that have ended meanwhile still hold. */
void tfi_request_settle(tf_generate *g);

/* The callback's arguments of row `row`: the number of its sequence and its tokens, in callback_ids. */
int32_t tfi_request_callback_ids(tf_generate *g, int32_t row, int32_t *count);

/* Would `token` behind beam `beam` complete a stop string? For tfi_sampling.completes; `user` is the request. */
int tfi_request_completes(void *user, int32_t beam, int32_t token);

/* All sequences that run end so. */
void tfi_request_end(tf_generate *g, tf_finish finish);
void tfi_request_fail(tf_generate *g, tf_status status, const char *error);

int64_t tfi_now_ms(void);

/* ---- for its owner ---- */

/* A token or a finish is there to be handed out. */
int tfi_request_has_next(const tf_generate *g);

tf_status tfi_request_next(tf_generate *g, tf_generated_token *out);
tf_status tfi_request_result(tf_generate *g, int32_t sequence, tf_generated *out);
tf_status tfi_request_scores(const tf_generate *g, int32_t kind, int64_t step, int32_t sequence, float *out, int64_t vocab);

/* Why there is nothing more to come: END, CANCELLED, or the failure with its text. */
tf_status tfi_request_status(const tf_generate *g);

/* ---- begin and end ---- */

/* What a request starts from; copied. */
typedef struct tfi_request_input {
    const tfi_generation *defaults;
    const tf_generate_options *options;
    const tf_tokenizer *tokenizer;
    const int32_t *ids;           /* decoder's prompt */
    const float *embeddings;      /* rows of ids -1, or NULL */
    int32_t count;
    const int32_t *source;        /* encoder's ids; NULL: source_embeddings */
    const float *source_embeddings;
    int32_t source_count;         /* 0: no encoder */
    int32_t vocab, width, max_context;
} tfi_request_input;

/* Make it and take its room: BUSY when others hold it. */
tf_status tfi_request_open(tfi_room *room, tfi_memory *memory, const tfi_request_input *in, tf_generate **out);
void tfi_request_free(tf_generate *g);

#endif
