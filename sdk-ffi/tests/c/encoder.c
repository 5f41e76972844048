/* An encoder with nothing to say, so that examples/c/minimal.c can be linked. */
#include "encoder.h"

struct my_encoder {
    int unused;
};

my_encoder_t *my_encoder_open(void) {
    static my_encoder_t encoder;
    return &encoder;
}

int my_encoder_next(my_encoder_t *encoder, const uint8_t **data, size_t *size, uint64_t *timestamp_us) {
    (void)encoder, (void)data, (void)size, (void)timestamp_us;
    return 0;
}

void my_encoder_force_idr(my_encoder_t *encoder) {
    (void)encoder;
}
