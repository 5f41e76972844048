/* What minimal.c expects of an encoder; your board's SDK has calls like these. */
#ifndef ENCODER_H
#define ENCODER_H

#include <stddef.h>
#include <stdint.h>

typedef struct my_encoder my_encoder_t;

my_encoder_t *my_encoder_open(void);

/* Waits for the next access unit (Annex B), which stays valid until the next call. 0: no more. */
int my_encoder_next(my_encoder_t *encoder, const uint8_t **data, size_t *size, uint64_t *timestamp_us);

/* The next access unit shall be an IDR. May be called from another thread. */
void my_encoder_force_idr(my_encoder_t *encoder);

#endif
