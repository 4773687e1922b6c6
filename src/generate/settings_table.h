/* The settings that are one number each, as a table: reading files, merging and checking all walk it. */
#ifndef TFI_GENERATE_SETTINGS_TABLE_H
#define TFI_GENERATE_SETTINGS_TABLE_H

#include <stddef.h>

#include <tfinfer/generate.h>

typedef enum tfi_setting_kind { TFI_SETTING_INT, TFI_SETTING_FLAG, TFI_SETTING_FLOAT } tfi_setting_kind;

/* What else a request must be like for a setting to act. */
typedef enum tfi_setting_when { TFI_WHEN_ALWAYS, TFI_WHEN_SAMPLING, TFI_WHEN_BEAMS, TFI_WHEN_SOURCE } tfi_setting_when;

enum { TFI_OPEN_LOW = 1, TFI_OPEN_HIGH = 2 };

typedef struct tfi_setting {
    const char *name;
    size_t offset; /* in tf_generate_options */
    tfi_setting_kind kind;
    tfi_setting_when when;
    int in_files;    /* generation_config.json has it, by the same name */
    int open;        /* ends that do not belong to the range */
    double min, max; /* infinite values never do */
    double unset;    /* where nobody sets it */
    double off;      /* where it does not act */
} tfi_setting;

enum { TFI_SETTING_COUNT = 36 };
extern const tfi_setting tfi_setting_table[TFI_SETTING_COUNT];

/* NaN: unset. */
double tfi_setting_get(const tf_generate_options *o, const tfi_setting *s);
void tfi_setting_put(tf_generate_options *o, const tfi_setting *s, double value);

/* The settings that are one list of ids. */
typedef struct tfi_id_setting {
    const char *name;
    const char *key;         /* in files; NULL: none */
    size_t ids_at, count_at; /* in tf_generate_options */
} tfi_id_setting;

enum { TFI_ID_SETTING_COUNT = 5 };
extern const tfi_id_setting tfi_id_setting_table[TFI_ID_SETTING_COUNT];

#endif
